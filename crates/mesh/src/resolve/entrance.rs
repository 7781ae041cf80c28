//! The way in: the gateway, the routes behind it, and who issues the tokens it asks for.

use std::collections::BTreeMap;

use url::Url;

use crate::declaration::{Declaration, Service};
use crate::diagnostics::{Finding, Findings, Rule};
use crate::path::UrlPath;
use crate::plan::{Algorithm, Protocol, RouteAuth, TokenType};
use crate::read::Entry;

/// The services with a part in letting callers in.
#[derive(Debug)]
pub(super) struct Entrance<'d> {
    pub(super) gateway: Option<&'d Entry<Service>>,
    pub(super) issuer: Option<Issuer<'d>>,
}

/// Who issues access tokens.
#[derive(Debug)]
pub(super) enum Issuer<'d> {
    /// A service of the mesh, with its route's prefix.
    Service(&'d Entry<Service>, &'d UrlPath),
    /// An issuer outside, by its URL.
    External(&'d str),
}

/// The services taken where nothing is declared.
const GATEWAY: &str = "gateway";
const IDENTITY: &str = "identity";

/// Where the identity service has its paths.
const IDENTITY_PREFIX: &str = "/identity";

/// Paths every service of the mesh keeps for itself: never routed from outside.
const PRIVATE: [&str; 4] = ["/internal", "/livez", "/metrics", "/readyz"];

impl<'d> Entrance<'d> {
    pub(super) fn new(declaration: &'d Declaration, findings: &mut Findings) -> Self {
        routes(declaration, findings);
        Self { gateway: gateway(declaration, findings), issuer: issuer(declaration, findings) }
    }
}

fn gateway<'d>(declaration: &'d Declaration, findings: &mut Findings) -> Option<&'d Entry<Service>> {
    let service = match &declaration.gateway.service {
        Some(reference) => declaration.services.find(reference, "service", findings)?,
        None => match declaration.services.get(GATEWAY) {
            Some(service) => service,
            None => {
                if !declaration.services.mentions(GATEWAY) {
                    let finding = Finding::new(Rule::NoGateway, "no service is the gateway")
                        .at(declaration.mesh.span.clone(), "nobody could get in")
                        .help("add `[services.gateway]`, and \"gateway\" to `runs` of a node; or name another service by `service` of `[gateway]`");
                    findings.push(finding);
                }
                return None;
            }
        },
    };
    if service.body.protocol == Protocol::Plain {
        let finding = Finding::new(Rule::NoGateway, format!("`{}` cannot be the gateway", service.name))
            .at(service.span.clone(), "a plain service knows neither the plan nor the mesh")
            .help("the gateway is Berth's own: `package = \"gateway\"`");
        findings.push(finding);
    }
    if let Some(route) = &service.body.route {
        let finding = Finding::new(Rule::ConflictingFields, "the gateway cannot be behind itself")
            .at(route.prefix.span(), "a route to the gateway")
            .help("take `route` away");
        findings.push(finding);
    }
    Some(service)
}

fn routes(declaration: &Declaration, findings: &mut Findings) {
    let mut prefixes: BTreeMap<&str, (&Entry<Service>, std::ops::Range<usize>)> = BTreeMap::new();
    for service in declaration.services.iter() {
        let Some(route) = &service.body.route else { continue };
        let (prefix, span) = (route.prefix.get_ref(), route.prefix.span());
        if let Some(private) =
            PRIVATE.iter().find(|private| UrlPath::new(**private).is_ok_and(|private| private.covers(prefix)))
        {
            let finding = Finding::new(Rule::InvalidValue, format!("`{prefix}` is never routed"))
                .at(span, "private")
                .help(format!("what lies below `{private}` is for the mesh alone; choose another prefix"));
            findings.push(finding);
        } else if let Some((other, first)) = prefixes.get(prefix.as_str()) {
            findings.push(overlap(service, prefix, span, &other.name, prefix, first.clone()));
        } else {
            prefixes.insert(prefix, (service, span));
        }
    }
    for (prefix, (service, span)) in &prefixes {
        for above in above(prefix) {
            if let Some((other, first)) = prefixes.get(above) {
                findings.push(overlap(service, prefix, span.clone(), &other.name, above, first.clone()));
            }
        }
    }
}

/// Every path that covers `path`, other than itself: `/a/b` has `/` and `/a`.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(move |(index, _)| match index {
        0 => Some("/").filter(|root| *root != path),
        index => path.get(..index),
    })
}

fn overlap(
    service: &Entry<Service>,
    prefix: &str,
    span: std::ops::Range<usize>,
    other: &str,
    above: &str,
    first: std::ops::Range<usize>,
) -> Finding {
    let message = if prefix == above {
        format!("`{}` and `{other}` both have the route `{prefix}`", service.name)
    } else {
        format!("the route `{prefix}` of `{}` lies below `{above}` of `{other}`", service.name)
    };
    Finding::new(Rule::RouteOverlap, message)
        .at(span, "this")
        .at(first, "and this")
        .help("a path belongs to one service: choose prefixes of which none covers another")
}

fn issuer<'d>(declaration: &'d Declaration, findings: &mut Findings) -> Option<Issuer<'d>> {
    let auth = &declaration.auth;
    let service = match &auth.issuer {
        Some(reference) if reference.get_ref().contains(['/', ':']) => return external(reference, findings),
        Some(reference) => declaration.services.find(reference, "service", findings)?,
        None => match declaration.services.get(IDENTITY) {
            Some(service) => service,
            None => {
                if !declaration.services.mentions(IDENTITY) {
                    let finding = Finding::new(Rule::NoIssuer, "nobody issues access tokens")
                        .at(declaration.mesh.span.clone(), "nobody could sign in")
                        .help("add `[services.identity]` with `route = { prefix = \"/identity\", auth = \"none\" }`, or name an OpenID provider: `[auth]` `issuer = \"https://…\"`");
                    findings.push(finding);
                }
                return None;
            }
        },
    };
    let built_in = [Algorithm::EdDSA];
    if let Some(algorithms) = auth.algorithms.as_ref().filter(|algorithms| **algorithms.get_ref() != built_in) {
        let finding = Finding::new(Rule::ConflictingFields, format!("`{}` signs with EdDSA", service.name))
            .at(algorithms.span(), "other than that")
            .help("leave `algorithms` out: it is for issuers outside the mesh");
        findings.push(finding);
    }
    if let Some(typ) = auth.typ.as_ref().filter(|typ| *typ.get_ref() != TokenType::AtJwt) {
        let finding = Finding::new(Rule::ConflictingFields, format!("`{}` writes `at+jwt`", service.name))
            .at(typ.span(), "would let in what is no access token")
            .help("leave `typ` out: it is for issuers outside the mesh");
        findings.push(finding);
    }
    let route = service.body.route.as_ref().filter(|route| *route.auth.get_ref() == RouteAuth::None);
    if route.is_none() || service.body.protocol == Protocol::Plain {
        let span = service.body.route.as_ref().map_or_else(|| service.span.clone(), |route| route.auth.span());
        let finding = Finding::new(Rule::NoIssuer, format!("nobody could get a token from `{}`", service.name))
            .at(span, "not open to callers without one")
            .help(format!(
                "give it `route = {{ prefix = \"{IDENTITY_PREFIX}\", auth = \"none\" }}` and leave its `protocol` at \"mesh\""
            ));
        findings.push(finding);
    }
    if let Some(prefix) = service.body.route.as_ref().map(|route| &route.prefix)
        && prefix.get_ref().as_str() != IDENTITY_PREFIX
    {
        let finding = Finding::new(Rule::NoIssuer, format!("`{}` serves below `{IDENTITY_PREFIX}`", service.name))
            .at(prefix.span(), "nothing is there")
            .help(format!("make it `prefix = \"{IDENTITY_PREFIX}\"`"));
        findings.push(finding);
    }
    if let Some(reference) = renamed_gateway(declaration) {
        let finding =
            Finding::new(Rule::NoGateway, format!("`{}` believes the gateway alone who a caller is", service.name))
                .at(reference.span(), "known to it under another name")
                .help(format!("call the service `{GATEWAY}`, or take an OpenID provider outside: `[auth]` `issuer`"));
        findings.push(finding);
    }
    route.map(|route| Issuer::Service(service, route.prefix.get_ref()))
}

/// A gateway of another name than the identity service knows: it counts attempts to sign in by the address that the gateway tells.
fn renamed_gateway(declaration: &Declaration) -> Option<&toml::Spanned<String>> {
    declaration.gateway.service.as_ref().filter(|reference| reference.get_ref() != GATEWAY)
}

fn external<'d>(reference: &'d toml::Spanned<String>, findings: &mut Findings) -> Option<Issuer<'d>> {
    let text = reference.get_ref();
    let mut wrong = |why: &str| {
        let finding = Finding::new(Rule::InvalidValue, format!("`{}` is not an issuer: {why}", text.escape_debug()))
            .at(reference.span(), "here")
            .help("an https URL without query and fragment, letter for letter as in the issuer's own `.well-known/openid-configuration`");
        findings.push(finding);
        None
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return wrong(&error.to_string()),
    };
    if url.scheme() != "https" {
        return wrong("it is not https");
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return wrong("only host, port and path are allowed");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return wrong("it has spaces");
    }
    Some(Issuer::External(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_above_a_path_are_those_that_cover_it() {
        assert_eq!(above("/").count(), 0);
        assert_eq!(above("/a").collect::<Vec<_>>(), ["/"]);
        assert_eq!(above("/a/b/c").collect::<Vec<_>>(), ["/", "/a", "/a/b"]);
    }
}

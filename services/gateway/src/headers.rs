//! Which headers pass, in either direction.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that mean one connection and not the message (RFC 9110, §7.6.1), whether `Connection` names them or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Names that say who somebody is or where a request came from, as far as they begin so. Only we may say that.
const CLAIMS: [&str; 9] =
    ["x-forwarded", "x-user", "x-role", "x-auth", "x-real-ip", "x-original-", "x-rewrite-", "x-remote-", "remote-"];
/// The same by their whole name.
const EXACT_CLAIMS: [&str; 7] =
    ["forwarded", "txn-token", "traceparent", "tracestate", "expect", "x-client-ip", "true-client-ip"];

/// Whether a service gets the credentials that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientCredentials {
    /// The issuer of access tokens: logging in is its business, by cookie and by `Authorization`.
    Pass,
    /// Everybody else learns of the client by the internal token alone.
    Strip,
}

/// Leaves of a request's headers what a service may see.
pub(crate) fn clean_request(headers: &mut HeaderMap, credentials: ClientCredentials) {
    // gRPC wants to know that trailers are understood, and so they are.
    let trailers = headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(headers);
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    headers.remove(header::HOST);
    if credentials == ClientCredentials::Strip {
        headers.remove(header::AUTHORIZATION);
        headers.remove(header::COOKIE);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Leaves of a response's headers what a client may see.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove("txn-token");
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn is_claim(name: &str) -> bool {
    // Where headers become variables (CGI, WSGI, PHP), `X_User` and `X-User` are the same.
    name.contains('_')
        || EXACT_CLAIMS.contains(&name)
        || (name.starts_with(['x', 'r']) && CLAIMS.iter().any(|claim| name.starts_with(claim)))
}

/// What every response of the gateway says to browsers.
#[derive(Debug)]
pub(crate) struct Advice {
    strict_transport: bool,
}

impl Advice {
    /// For the public host name. Strict transport security is for names that are ours alone: on `localhost` it would bind
    /// whatever else runs there, and for addresses it means nothing (RFC 6797, §8.1.1).
    pub(crate) fn for_host(host: &str) -> Self {
        let local = host == "localhost" || host.ends_with(".localhost");
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
        Self { strict_transport: !local && !address }
    }

    /// Adds the advice where the service has not given its own.
    pub(crate) fn add(&self, headers: &mut HeaderMap) {
        let mut add = |name, value| {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        };
        add(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        add(header::REFERRER_POLICY, "no-referrer");
        add(header::X_FRAME_OPTIONS, "DENY");
        if self.strict_transport {
            add(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn nobody_says_from_outside_who_somebody_is() {
        let mut headers = map(&[
            ("host", "shop"),
            ("accept", "*/*"),
            ("authorization", "Bearer x"),
            ("cookie", "session=1"),
            ("txn-token", "forged"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-client-cert", "admin"),
            ("x-forwarded-anything", "1"),
            ("x-user", "admin"),
            ("x-user-id", "1"),
            ("x-userinfo", "1"),
            ("x-role", "admin"),
            ("x-roles", "admin"),
            ("x-auth-request-user", "admin"),
            ("x-real-ip", "1.2.3.4"),
            ("x-original-url", "/internal"),
            ("x-rewrite-url", "/internal"),
            ("remote-user", "admin"),
            ("x-remote-user", "admin"),
            ("x_user", "admin"),
            ("x_anything", "1"),
            ("traceparent", "00-…"),
            ("expect", "100-continue"),
            ("x-request-id", "kept"),
            ("idempotency-key", "kept"),
        ]
        .map(|(name, value)| (name, if value.is_ascii() { value } else { "x" })));
        clean_request(&mut headers, ClientCredentials::Strip);
        assert_eq!(names(&headers), ["accept", "idempotency-key", "x-request-id"]);
    }

    #[test]
    fn only_the_issuer_sees_credentials() {
        let sent = [("authorization", "Basic x"), ("cookie", "a=1")];
        let mut headers = map(&sent);
        clean_request(&mut headers, ClientCredentials::Pass);
        assert_eq!(names(&headers), ["authorization", "cookie"]);
        let mut headers = map(&sent);
        clean_request(&mut headers, ClientCredentials::Strip);
        assert!(headers.is_empty());
    }

    #[test]
    fn what_means_one_connection_does_not_pass() {
        let sent = [
            ("connection", "close, X-Private"),
            ("connection", "another"),
            ("x-private", "1"),
            ("another", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("content-type", "text/plain"),
        ];
        let mut headers = map(&sent);
        clean_request(&mut headers, ClientCredentials::Strip);
        assert_eq!(names(&headers), ["content-type"]);
        let mut headers = map(&sent);
        clean_response(&mut headers);
        assert_eq!(names(&headers), ["content-type"]);
    }

    #[test]
    fn trailers_are_understood() {
        let mut headers = map(&[("te", "Trailers")]);
        clean_request(&mut headers, ClientCredentials::Strip);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn strict_transport_is_for_real_names() {
        for (host, strict) in [
            ("shop.example", true),
            ("localhost", false),
            ("a.localhost", false),
            ("127.0.0.1", false),
            ("[::1]", false),
        ] {
            let mut headers = HeaderMap::new();
            Advice::for_host(host).add(&mut headers);
            assert_eq!(headers.contains_key(header::STRICT_TRANSPORT_SECURITY), strict, "{host}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
    }
}

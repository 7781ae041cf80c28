//! TOML values into types, with the place of each, reporting whatever does not fit and going on.
//!
//! serde stops at the first error and this must not: a person wants to see all of them. So the values of the TOML parser, which carry
//! their spans, are read by hand, through one small trait.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostics::{Finding, Findings, Rule, Span, did_you_mean};
use crate::field::{Field, Shape, Table};
use crate::name::{Domain, InvalidName, Name};
use crate::path::UrlPath;
use crate::subject::Subject;
use crate::units::{Bytes, InvalidQuantity, MilliCpu, Millis, Port};

/// A value with its place.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// What can be read from a value. Nothing is returned exactly when a finding was made.
pub(crate) trait Read: Shape + Sized {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self>;
}

fn article(type_name: &str) -> &'static str {
    if type_name.starts_with(['a', 'i']) { "an" } else { "a" }
}

/// Reports that `value` should have been `wanted`.
pub(crate) fn wrong_type<T>(value: &Value<'_>, wanted: &str, findings: &mut Findings) -> Option<T> {
    let found = value.get_ref().type_str();
    let found = if found == "boolean" { "true-or-false value" } else { found };
    let message = format!("{} {found} stands where {wanted} should", article(found));
    let finding = Finding::new(Rule::WrongType, message).at(value.span(), format!("should be {wanted}"));
    findings.push(finding.help(other_type(value.get_ref(), wanted)));
    None
}

/// How what stands there is written as what is wanted, or else how that is written.
fn other_type(value: &DeValue<'_>, wanted: &str) -> String {
    let quoted = value.as_str();
    let unquoted = match value {
        DeValue::Integer(integer) => Some(integer.to_string()),
        DeValue::Float(float) => Some(float.as_str().to_owned()),
        DeValue::Boolean(is) => Some(is.to_string()),
        _ => None,
    };
    match (quoted, unquoted) {
        (Some(text), _) if wanted.contains("number") && text.parse::<f64>().is_ok_and(f64::is_finite) => {
            format!("without the quotes: `{text}`")
        }
        (Some(text), _) if wanted == "true or false" && text.parse::<bool>().is_ok() => {
            format!("without the quotes: `{text}`")
        }
        (Some(text), _) if wanted == "a list" => format!("in brackets: `[{text:?}]`"),
        (_, Some(text)) if wanted == "a string" => format!("in quotes: `\"{text}\"`"),
        _ if wanted.starts_with("a table") => {
            "the fields of a table stand in braces, `{ field = value }`, or below a `[header]`".to_owned()
        }
        _ if wanted == "a list" => "a list stands in brackets: `[\"a\", \"b\"]`".to_owned(),
        _ => format!("write {wanted}"),
    }
}

fn invalid<T>(value: &Value<'_>, message: String, help: String, findings: &mut Findings) -> Option<T> {
    findings.push(Finding::new(Rule::InvalidValue, message).at(value.span(), "here").help(help));
    None
}

fn text<'v>(value: &'v Value<'_>, wanted: &str, findings: &mut Findings) -> Option<&'v str> {
    value.get_ref().as_str().or_else(|| wrong_type(value, wanted, findings))
}

fn quantity<T>(value: &Value<'_>, result: Result<T, InvalidQuantity>, findings: &mut Findings) -> Option<T> {
    result.or_else(|InvalidQuantity { problem, help }| invalid(value, problem, help, findings).ok_or(())).ok()
}

impl Read for String {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        text(value, "a string", findings).map(str::to_owned)
    }
}

impl Read for bool {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        value.get_ref().as_bool().or_else(|| wrong_type(value, "true or false", findings))
    }
}

impl<T: Read> Read for Spanned<T> {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        T::read(value, findings).map(|inner| Spanned::new(value.span(), inner))
    }
}

/// Elements that do not fit are reported and left out.
impl<T: Read> Read for Vec<T> {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else {
            return wrong_type(value, "a list", findings);
        };
        Some(array.iter().filter_map(|element| T::read(element, findings)).collect())
    }
}

impl Read for Bytes {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let text = text(value, "an amount such as \"256MiB\"", findings)?;
        quantity(value, Self::parse(text), findings)
    }
}

impl Read for Millis {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let text = text(value, "a duration such as \"1s\"", findings)?;
        quantity(value, Self::parse(text), findings)
    }
}

impl Read for MilliCpu {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let cores = match value.get_ref() {
            DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok().filter(|_| integer.radix() == 10),
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            _ => None,
        };
        let Some(cores) = cores else {
            return wrong_type(value, "a number of cores such as 0.5", findings);
        };
        quantity(value, Self::from_cores(cores), findings)
    }
}

/// A whole number within a range.
pub(crate) fn whole(value: &Value<'_>, range: std::ops::RangeInclusive<u32>, findings: &mut Findings) -> Option<u32> {
    let DeValue::Integer(integer) = value.get_ref() else {
        return wrong_type(value, "a whole number", findings);
    };
    let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|number| range.contains(number));
    number.or_else(|| {
        let help = format!("write a whole number from {} to {}", range.start(), range.end());
        invalid(value, format!("{integer} is out of range"), help, findings)
    })
}

/// A whole number from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<const LEAST: u32, const MOST: u32>(pub(crate) u32);

impl<const LEAST: u32, const MOST: u32> Read for Whole<LEAST, MOST> {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        whole(value, LEAST..=MOST, findings).map(Self)
    }
}

impl Read for Port {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let port = whole(value, 1..=u32::from(u16::MAX), findings)?;
        u16::try_from(port).ok().and_then(Self::new)
    }
}

impl Read for UrlPath {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        const HELP: &str = "letters, digits and `-`, `.`, `_`, `~` between single slashes, such as `/items`";
        let text = text(value, "a path such as \"/items\"", findings)?;
        let error = match Self::new(text) {
            Ok(path) => return Some(path),
            Err(error) => error.to_string(),
        };
        let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
        let tidy = Self::new(format!("/{}", segments.join("/")));
        let help = tidy.map_or_else(|_| HELP.to_owned(), |tidy| format!("did you mean `{tidy}`?"));
        invalid(value, error, help, findings)
    }
}

impl Read for Subject {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        const HELP: &str = "such as `items.item.created`; `*` stands for any one part, `>` at the end for all that follow: `items.item.*`, `items.>`";
        let text = text(value, "an event subject such as \"items.>\"", findings)?;
        Self::new(text).or_else(|error| invalid(value, error.to_string(), HELP.to_owned(), findings).ok_or(())).ok()
    }
}

impl Read for Domain {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        const HELP: &str = "lower-case letters, digits and hyphens with dots between, such as `eshop.internal`";
        let text = text(value, "a domain such as \"eshop.internal\"", findings)?;
        Self::new(text).or_else(|error| name_error(&value.span(), &error, HELP, findings).ok_or(())).ok()
    }
}

impl Read for Name {
    fn read(value: &Value<'_>, findings: &mut Findings) -> Option<Self> {
        let text = text(value, "a name", findings)?;
        declared_name(text, value.span(), findings)
    }
}

fn name_error<T>(span: &Span, error: &InvalidName, help: &str, findings: &mut Findings) -> Option<T> {
    findings.push(Finding::new(Rule::InvalidName, error.to_string()).at(span.clone(), "here").help(help));
    None
}

/// A name a person may give: one that leaves room for an instance's number and does not look like it had one.
pub(crate) fn declared_name(text: &str, span: Span, findings: &mut Findings) -> Option<Name> {
    let tidy: String = text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let tidy: Vec<&str> = tidy.split('-').filter(|part| !part.is_empty()).collect();
    let tidy = tidy.join("-");
    let help = match Name::new(&*tidy) {
        Ok(name) if name.len() <= Name::MOST_DECLARED && name != *text && !name.is_numbered() => {
            format!("`{name}` would be valid")
        }
        _ => format!(
            "lower-case letters, digits and single hyphens, a letter first, at most {} characters",
            Name::MOST_DECLARED
        ),
    };
    let name = match Name::new(text) {
        Ok(name) => name,
        Err(error) => return name_error(&span, &error, &help, findings),
    };
    if name.len() > Name::MOST_DECLARED {
        return name_error(
            &span,
            &InvalidName::new(format!("`{name}` is longer than {} characters", Name::MOST_DECLARED)),
            &help,
            findings,
        );
    }
    if name.is_numbered() {
        let finding = Finding::new(Rule::ReservedName, format!("`{name}` looks like an instance's name"))
            .at(span, "a number after the last hyphen")
            .help("instances and nodes are numbered so (`items-1`); leave the hyphen or the number out");
        findings.push(finding);
        return None;
    }
    Some(name)
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(value: &Value<'_>, choices: &[(&str, T)], findings: &mut Findings) -> Option<T> {
    let names = || choices.iter().map(|(name, _)| *name);
    let all = names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let text = text(value, &format!("one of {all}"), findings)?;
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    found.or_else(|| {
        let help = did_you_mean(text, names()).unwrap_or_else(|| format!("it is one of {all}"));
        invalid(value, format!("`{text}` is not known here"), help, findings)
    })
}

/// The fields of a table, taken one by one; what was not asked for when it is closed is unknown.
pub(crate) struct Fields<'v, 't> {
    table: &'v DeTable<'t>,
    /// What to point at when a field is missing.
    span: Span,
    /// `services.item-management`, for messages.
    title: String,
    known: Vec<&'static str>,
}

impl<'v, 't> Fields<'v, 't> {
    pub(crate) fn new(table: &'v DeTable<'t>, span: Span, title: impl Into<String>) -> Self {
        Self { table, span, title: title.into(), known: Vec::new() }
    }

    /// The fields of a value that must be a table.
    pub(crate) fn of(value: &'v Value<'t>, span: Span, title: &str, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::new(table, span, title)),
            _ => wrong_type(value, "a table", findings),
        }
    }

    /// What to point at when the table as a whole is meant.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The field's key and value, if it is there.
    pub(crate) fn entry<T>(&mut self, field: &Field<T>) -> Option<(Span, &'v Value<'t>)> {
        self.known.push(field.name);
        self.table.get_key_value(field.name).map(|(key, value)| (key.span(), value))
    }

    pub(crate) fn optional<T: Read>(&mut self, field: &Field<T>, findings: &mut Findings) -> Option<T> {
        let (_, value) = self.entry(field)?;
        T::read(value, findings)
    }

    pub(crate) fn list<T: Read>(&mut self, field: &Field<Vec<T>>, findings: &mut Findings) -> Vec<T> {
        self.optional(field, findings).unwrap_or_default()
    }

    pub(crate) fn or<T: Read>(&mut self, field: &Field<T>, default: T, findings: &mut Findings) -> T {
        self.optional(field, findings).unwrap_or(default)
    }

    pub(crate) fn required<T: Read>(&mut self, field: &Field<T>, findings: &mut Findings) -> Option<T> {
        let Some((_, value)) = self.entry(field) else {
            let name = field.name;
            let finding = Finding::new(Rule::MissingField, format!("`{}` has no `{name}`", self.title))
                .at(self.span.clone(), format!("`{name}` is missing"))
                .maybe_help(field.required.map(|example| format!("add `{name} = {example}`")));
            findings.push(finding);
            return None;
        };
        T::read(value, findings)
    }

    /// Reports every field nobody asked for. What is asked for are the fields of `T`.
    pub(crate) fn close<T: Table>(self, findings: &mut Findings) {
        debug_assert!(
            T::FIELDS.iter().all(|field| self.known.contains(&field.name()))
                && self.known.iter().all(|name| T::FIELDS.iter().any(|field| field.name() == *name)),
            "`{}` is not described by the fields that are read: {:?}",
            self.title,
            self.known
        );
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let help = did_you_mean(name, self.known.iter().copied())
                .unwrap_or_else(|| format!("the fields here are {}", self.known.join(", ")));
            let finding = Finding::new(Rule::UnknownField, format!("`{}` has no field `{name}`", self.title))
                .at(key.span(), "unknown")
                .help(help);
            findings.push(finding);
        }
    }
}

/// A declared thing: its name and what stands under it.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) name: Name,
    pub(crate) span: Span,
    pub(crate) body: T,
}

/// Declared things of one kind, in the order of the text.
#[derive(Debug)]
pub(crate) struct Entries<T> {
    entries: Vec<Entry<T>>,
    index: BTreeMap<Name, usize>,
    /// Names that stand there but are not valid: reported once, where they stand, and not again where they are used.
    broken: BTreeSet<String>,
    is_garbled: bool,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), index: BTreeMap::new(), broken: BTreeSet::new(), is_garbled: false }
    }
}

impl<T: Table> Entries<T> {
    /// Reads `[<field>.<name>]` tables, each by `body`.
    pub(crate) fn read(
        root: &mut Fields<'_, '_>,
        field: &Field<Self>,
        findings: &mut Findings,
        body: impl Fn(&Name, &mut Fields<'_, '_>, &mut Findings) -> T,
    ) -> Self {
        let mut all = Self::default();
        let Some((_, value)) = root.entry(field) else {
            return all;
        };
        let field = field.name;
        let Some(table) = value.get_ref().as_table() else {
            wrong_type::<()>(value, &format!("a table of tables, `[{field}.<name>]`,"), findings);
            all.is_garbled = true;
            return all;
        };
        let mut keys: Vec<_> = table.iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in keys {
            let name = declared_name(key.get_ref(), key.span(), findings);
            let title = format!("{field}.{}", key.get_ref());
            let (Some(name), Some(mut fields)) = (name, Fields::of(value, key.span(), &title, findings)) else {
                all.broken.insert(key.get_ref().to_string());
                all.is_garbled = true;
                continue;
            };
            let body = body(&name, &mut fields, findings);
            fields.close::<T>(findings);
            all.index.insert(name.clone(), all.entries.len());
            all.entries.push(Entry { name, span: key.span(), body });
        }
        all
    }
}

impl<T> Entries<T> {
    pub(crate) fn get(&self, name: &str) -> Option<&Entry<T>> {
        self.entries.get(*self.index.get(name)?)
    }

    /// Whether something of this kind could not be read.
    pub(crate) fn is_garbled(&self) -> bool {
        self.is_garbled
    }

    /// Whether somebody wrote it down, valid or not; when nothing of its kind could be read, they may have.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        self.index.contains_key(name)
            || self.broken.contains(name)
            || (self.is_garbled && self.entries.is_empty() && self.broken.is_empty())
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Entry<T>> {
        self.entries.iter()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The thing that `reference` names; if there is none, that is reported, with `kind` for what was sought.
    pub(crate) fn find(&self, reference: &Spanned<String>, kind: &str, findings: &mut Findings) -> Option<&Entry<T>> {
        let name = reference.get_ref();
        let found = self.get(name);
        if found.is_none() && !self.mentions(name) {
            findings.push(unknown_reference(reference, kind, self.names()));
        }
        found
    }
}

/// `reference` names nothing among `candidates`.
pub(crate) fn unknown_reference<'a>(
    reference: &Spanned<String>,
    kind: &str,
    candidates: impl Iterator<Item = &'a str> + Clone,
) -> Finding {
    let name = reference.get_ref();
    let help = did_you_mean(name, candidates.clone()).unwrap_or_else(|| {
        let mut some: Vec<&str> = candidates.take(13).collect();
        if some.len() > 12 {
            some.truncate(12);
            some.push("…");
        }
        if some.is_empty() { "none is declared".to_owned() } else { format!("declared are {}", some.join(", ")) }
    });
    Finding::new(Rule::UnknownReference, format!("there is no {kind} `{name}`"))
        .at(reference.span(), "not declared")
        .help(help)
}

//! What is wrong with a declaration: every finding with its place in the text, what is wrong there, and what would be right.

use std::fmt;
use std::ops::Range;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceSpan};

/// A place in the text, in bytes.
pub(crate) type Span = Range<usize>;

/// Everything that is wrong with one `mesh.toml`, in the order of the text. A `miette` handler renders it with the lines it is about.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{} cannot be resolved: {}", file, match findings.len() { 1 => "1 error".to_owned(), n => format!("{n} errors") })]
pub struct Diagnostics {
    file: String,
    #[source_code]
    source_code: NamedSource<String>,
    #[related]
    findings: Vec<Finding>,
}

impl Diagnostics {
    pub(crate) fn new(file: &str, text: &str, mut findings: Vec<Finding>) -> Self {
        // Stable: findings about the same place stay in the order they were made in.
        findings.sort_by_key(Finding::offset);
        for finding in &mut findings {
            (finding.line, finding.column) = line_and_column(text, finding.offset());
        }
        Self {
            file: file.to_owned(),
            source_code: NamedSource::new(file, text.to_owned()).with_language("toml"),
            findings,
        }
    }

    /// Each of them.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

/// Both from 1; the column counts characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before.get(line_start..).map_or(0, |line| line.chars().count()) + 1)
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    rule: Rule,
    message: String,
    labels: Vec<(Span, String)>,
    help: Option<String>,
    line: usize,
    column: usize,
}

impl Finding {
    pub(crate) fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), labels: Vec::new(), help: None, line: 1, column: 1 }
    }

    /// Points at a place; the first one is where the finding stands.
    pub(crate) fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.labels.push((span, label.into()));
        self
    }

    /// Says what would be right.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// [`Finding::help`], when there is something to say.
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    fn offset(&self) -> usize {
        self.labels.first().map_or(0, |(span, _)| span.start)
    }

    /// The rule that is broken.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The line it stands on, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The character in that line, from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Finding {}

impl Diagnostic for Finding {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.rule.code()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labels = self.labels.iter().enumerate().map(|(index, (span, text))| {
            let place = SourceSpan::from(span.clone());
            let text = (!text.is_empty()).then(|| text.clone());
            if index == 0 {
                LabeledSpan::new_primary_with_span(text, place)
            } else {
                LabeledSpan::new_with_span(text, place)
            }
        });
        Some(Box::new(labels))
    }
}

/// Findings gathered along the way.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_inner(self) -> Vec<Finding> {
        self.0
    }
}

/// The one of `candidates` that `text` was most likely meant to be, as a help.
pub(crate) fn did_you_mean<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let allowed = (text.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed || (text.len() >= 3 && candidate.starts_with(text)))
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $rule:ident = $code:literal,)+) => {
        /// What a declaration must not do. The code of each is what a rendered finding opens with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[doc = $doc])+ $rule,)+
        }

        impl Rule {
            /// Every rule there is.
            pub const ALL: &[Self] = &[$(Self::$rule,)+];

            /// `mesh::unknown-field` and so on.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$rule => concat!("mesh::", $code),)+
                }
            }
        }
    };
}

rules! {
    /// The text is not TOML.
    Syntax = "syntax",
    /// A value has the wrong type.
    WrongType = "wrong-type",
    /// A field that does not exist.
    UnknownField = "unknown-field",
    /// A field that must be there is not.
    MissingField = "missing-field",
    /// A value of the right type that means nothing here.
    InvalidValue = "invalid-value",
    /// A name that is not valid everywhere it ends up.
    InvalidName = "invalid-name",
    /// A name that belongs to the mesh itself.
    ReservedName = "reserved-name",
    /// Two things that run have one name.
    NameTaken = "name-taken",
    /// The same thing twice in one list.
    Duplicate = "duplicate",
    /// Two fields that exclude each other, or of which one has no meaning with the other.
    ConflictingFields = "conflicting-fields",
    /// A name that nothing has.
    UnknownReference = "unknown-reference",
    /// Something that runs is on no node.
    Unplaced = "unplaced",
    /// Something that can be in one place only is on several nodes.
    PlacedTwice = "placed-twice",
    /// More memory than the node has.
    MemoryExceeded = "memory-exceeded",
    /// More processor cores than the node has.
    CpuExceeded = "cpu-exceeded",
    /// More disk than the node has.
    DiskExceeded = "disk-exceeded",
    /// Two listeners on one port of a node.
    PortClash = "port-clash",
    /// `min <= start <= max` does not hold.
    ReplicasOrder = "replicas-order",
    /// Two route prefixes of which one covers the other.
    RouteOverlap = "route-overlap",
    /// A secret that `[secrets]` does not declare.
    UndeclaredSecret = "undeclared-secret",
    /// Services that call each other in a circle.
    CallCycle = "call-cycle",
    /// A database with more than one owner, or a service with more than one database.
    SharedDatabase = "shared-database",
    /// A database without an owner.
    UnownedDatabase = "unowned-database",
    /// No service is the gateway.
    NoGateway = "no-gateway",
    /// Nobody issues access tokens, or nobody can reach who does.
    NoIssuer = "no-issuer",
    /// Events without an event bus.
    NoEvents = "no-events",
    /// A consumed subject that nobody emits.
    NeverEmitted = "never-emitted",
    /// A subject that two streams or two filters would both hold.
    SubjectOverlap = "subject-overlap",
    /// A consumer that takes some events of an aggregate and not others.
    PartialAggregate = "partial-aggregate",
    /// An environment variable that the mesh itself sets.
    ReservedVariable = "reserved-variable",
    /// A `${…}` in a command line that nobody has a value for.
    UnknownVariable = "unknown-variable",
    /// The mesh does not fit the placement it is resolved for.
    Placement = "placement",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_in_lines_and_characters() {
        let text = "a = 1\nbé = 2\n";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, 6), (2, 1));
        assert_eq!(line_and_column(text, 9), (2, 3), "é is one character of two bytes");
        assert_eq!(line_and_column(text, 999), (3, 1), "beyond the end is the end");
    }

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["item-management", "eshop-documents", "gateway"];
        assert_eq!(did_you_mean("item-managment", names).as_deref(), Some("did you mean `item-management`?"));
        assert_eq!(did_you_mean("gate", names).as_deref(), Some("did you mean `gateway`?"));
        assert_eq!(did_you_mean("x", names), None);
    }
}

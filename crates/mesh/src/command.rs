//! `${NAME}` in command lines, as systemd and compose write it.

use crate::plan::UnknownVariable;

/// A piece of a word: as it stands, or the name in `${NAME}`. A `$` without a brace stands for itself; `$$` is one `$`.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

fn pieces(word: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        pieces.push(Piece::Text(before));
        if let Some(after) = after.strip_prefix('$') {
            pieces.push(Piece::Text("$"));
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            pieces.push(Piece::Variable(name));
            rest = after;
        } else {
            pieces.push(Piece::Text("$"));
            rest = after;
        }
    }
    pieces.push(Piece::Text(rest));
    pieces
}

/// The names in `${…}` of `word`.
pub(crate) fn variables(word: &str) -> impl Iterator<Item = &str> {
    pieces(word).into_iter().filter_map(|piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// `word` with every `${NAME}` replaced by what `lookup` knows.
pub(crate) fn expand(word: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, UnknownVariable> {
    let mut expanded = String::with_capacity(word.len());
    for piece in pieces(word) {
        match piece {
            Piece::Text(text) => expanded.push_str(text),
            Piece::Variable(name) => expanded.push_str(&lookup(name).ok_or_else(|| UnknownVariable(name.to_owned()))?),
        }
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_dollars_escaped() {
        let lookup = |name: &str| (name == "PORT").then(|| "8080".to_owned());
        for (word, expected) in [
            ("--port=${PORT}", "--port=8080"),
            ("${PORT}${PORT}", "80808080"),
            ("plain", "plain"),
            ("$PORT", "$PORT"),
            ("$${PORT}", "${PORT}"),
            ("100$", "100$"),
            ("${PORT", "${PORT"),
        ] {
            assert_eq!(expand(word, lookup).as_deref(), Ok(expected), "{word}");
        }
        assert_eq!(expand("${HOST}", lookup), Err(UnknownVariable("HOST".to_owned())));
        assert_eq!(variables("a${B}c${D}").collect::<Vec<_>>(), ["B", "D"]);
    }
}

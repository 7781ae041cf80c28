//! What the file will be called that Maven or Gradle makes, as far as their files say so in plain words. Neither is run, and what only
//! they could work out (properties, plugins, code) is not guessed at.

use roxmltree::{Document, Node};

/// What a build makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Archive {
    /// A file of this name.
    Named(String),
    /// A file whose name is not written down.
    Unnamed,
    /// No file: it builds other projects.
    None,
}

/// What `mvn package` makes in `target`, by the text of a `pom.xml`: `<finalName>`, which is `<artifactId>-<version>` if nothing is said
/// (<https://maven.apache.org/pom.html#the-basebuild-element-set>); a version that is not there is the parent's.
pub(super) fn of_maven(pom: &str) -> Archive {
    let Ok(document) = Document::parse(pom) else { return Archive::Unnamed };
    let project = document.root_element();
    let ending = match text(project, &["packaging"]) {
        None | Some("jar") => "jar",
        Some("war") => "war",
        Some("pom") => return Archive::None,
        Some(_) => return Archive::Unnamed,
    };
    let artifact = text(project, &["artifactId"]);
    let version = text(project, &["version"]).or_else(|| text(project, &["parent", "version"]));
    let name = text(project, &["build", "finalName"]).unwrap_or("${project.artifactId}-${project.version}");
    let mut filled = name.to_owned();
    for (property, value) in [("${project.artifactId}", artifact), ("${project.version}", version)] {
        filled = value.map_or_else(|| filled.clone(), |value| filled.replace(property, value));
    }
    if is_plain(&filled) { Archive::Named(format!("{filled}.{ending}")) } else { Archive::Unnamed }
}

/// The text of the element that is reached by these names.
fn text<'d>(project: Node<'d, '_>, names: &[&str]) -> Option<&'d str> {
    let mut element = project;
    for name in names {
        element = element.children().find(|child| child.tag_name().name() == *name)?;
    }
    element.text().map(str::trim).filter(|text| !text.is_empty())
}

/// What `gradle build` makes in `build/libs`, or nothing where that is worked out: `<project>-<version>.jar`
/// (<https://docs.gradle.org/current/dsl/org.gradle.jvm.tasks.Jar.html>). The project is named in its settings, else like its
/// `folder`; the version stands in the build file or in `gradle.properties`, or nowhere.
pub(super) fn of_gradle(folder: &str, settings: Option<&str>, build: &str, properties: &str) -> Option<String> {
    const RENAMES: [&str; 6] = [
        "archivesName",
        "archivesBaseName",
        "archiveBaseName",
        "archiveFileName",
        "archiveVersion",
        "archiveClassifier",
    ];
    if RENAMES.iter().any(|word| build.contains(word)) {
        return None;
    }
    let name = assigned(settings.unwrap_or_default(), "rootProject.name").unwrap_or_else(|| Some(folder.to_owned()))?;
    let of_properties = || properties.lines().find_map(|line| property(line, "version")).map(str::to_owned);
    let version = assigned(build, "version").unwrap_or_else(|| Some(of_properties().unwrap_or_default()))?;
    let file = if version.is_empty() { name } else { format!("{name}-{version}") };
    is_plain(&file).then(|| format!("{file}.jar"))
}

/// What a line of a Groovy or Kotlin script gives to `name`: no such line, a text in quotes, or something to be worked out, which any
/// line within a block counts as.
fn assigned(script: &str, name: &str) -> Option<Option<String>> {
    let line = script.lines().find(|line| value(line.trim_start(), name).is_some())?;
    let quoted = || {
        let value = value(line, name)?;
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        value.get(1..)?.split_once(quote).filter(|(_, rest)| is_end(rest)).map(|(text, _)| text.to_owned())
    };
    Some(quoted())
}

/// What stands after `name` and perhaps `=`, unless the word only begins so.
fn value<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '\t', '=', '.']))?.trim_start();
    Some(rest.strip_prefix('=').unwrap_or(rest).trim_start())
}

/// Whether a line has nothing more to say.
fn is_end(rest: &str) -> bool {
    let rest = rest.trim().trim_start_matches(';').trim_start();
    rest.is_empty() || rest.starts_with("//")
}

/// The value of a property, in a `.properties` file.
fn property<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split_once(['=', ':']).filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// Whether a file can be called so: no variable is left in it, and it is one name.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['$', '/', '\\']) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mavens_archive_is_named_by_its_pom() {
        const NAMED: &str = "<artifactId>quote</artifactId><version>1.2-SNAPSHOT</version>";
        let parent = "<parent><artifactId>all</artifactId><version>3</version></parent><artifactId>quote</artifactId>";
        for (pom, archive) in [
            (NAMED.to_owned(), Some("quote-1.2-SNAPSHOT.jar")),
            (format!("{NAMED}<packaging>war</packaging>"), Some("quote-1.2-SNAPSHOT.war")),
            (format!("{NAMED}<build><finalName>app</finalName></build>"), Some("app.jar")),
            (format!("{NAMED}<build><finalName> ${{project.artifactId}} </finalName></build>"), Some("quote.jar")),
            (
                format!("{NAMED}<dependencies><dependency><version>9</version></dependency></dependencies>"),
                Some("quote-1.2-SNAPSHOT.jar"),
            ),
            (parent.to_owned(), Some("quote-3.jar")),
            ("<artifactId>quote</artifactId><version>${revision}</version>".to_owned(), None),
            (format!("{NAMED}<build><finalName>../app</finalName></build>"), None),
            (format!("{NAMED}<packaging>ear</packaging>"), None),
            ("<artifactId>quote</artifactId>".to_owned(), None),
            ("<artifactId>".to_owned(), None),
        ] {
            let archive = archive.map_or(Archive::Unnamed, |file| Archive::Named(file.to_owned()));
            let namespace = "xmlns=\"http://maven.apache.org/POM/4.0.0\"";
            assert_eq!(of_maven(&format!("<project {namespace}>{pom}</project>")), archive, "{pom}");
        }
    }

    #[test]
    fn a_project_of_projects_makes_no_archive() {
        assert_eq!(of_maven("<project><packaging>pom</packaging></project>"), Archive::None);
    }

    #[test]
    fn gradles_archive_is_named_by_settings_and_version() {
        for (settings, build, properties, archive) in [
            ("", "", "", Some("pricing.jar")),
            ("rootProject.name = 'quote'", "version = '1.2'", "", Some("quote-1.2.jar")),
            ("rootProject.name = \"quote\" // ours", "version '1.2'", "", Some("quote-1.2.jar")),
            ("rootProject.name=\"quote\"", "version=\"1.2\";", "version=9", Some("quote-1.2.jar")),
            ("", "versionCatalogs()", "org.gradle.caching=true\nversion = 2", Some("pricing-2.jar")),
            ("", "plugins {\n    id(\"x\") version \"3\"\n}", "", Some("pricing.jar")),
            ("", "version = \"1.$build\"", "", None),
            ("", "version = '1.' + build", "", None),
            ("", "version = file('VERSION').text", "", None),
            ("", "allprojects {\n    version = '1'\n}", "", None),
            ("rootProject.name = providers.get()", "", "", None),
            ("", "bootJar {\n    archiveFileName = 'app.jar'\n}", "", None),
        ] {
            let found = of_gradle("pricing", Some(settings), build, properties);
            assert_eq!(found.as_deref(), archive, "{settings} {build} {properties}");
        }
    }
}

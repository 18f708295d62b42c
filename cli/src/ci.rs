//! Pipelines that fold and mark lines: GitHub Actions, GitLab, TeamCity, each in its own words.
//!
//! The marks go to stderr with the progress they fold, so that stdout stays the answer and nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

/// A pipeline that understands marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipeline {
    GitHub,
    GitLab,
    TeamCity,
}

/// Something a pipeline should show beside the run, or beside the line of the file it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    pub title: String,
    pub text: String,
    /// File, line and column.
    pub place: Option<(String, usize, usize)>,
}

impl Pipeline {
    /// The pipeline this process runs in, as its environment says.
    #[must_use]
    pub fn here() -> Option<Self> {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let is_true = |name| variable(name).as_deref() == Some("true");
        match () {
            () if is_true("GITHUB_ACTIONS") => Some(Self::GitHub),
            () if is_true("GITLAB_CI") => Some(Self::GitLab),
            () if variable("TEAMCITY_VERSION").is_some() => Some(Self::TeamCity),
            () => None,
        }
    }

    /// Begins lines that belong together.
    #[must_use]
    pub fn open(self, title: &str) -> String {
        match self {
            Self::GitHub => format!("::group::{}\n", github(title)),
            Self::GitLab => {
                let (now, id) = (now(), section(title));
                format!("\u{1b}[0Ksection_start:{now}:{id}\r\u{1b}[0K{}\n", line(title))
            }
            Self::TeamCity => format!("##teamcity[blockOpened name='{}']\n", teamcity(title)),
        }
    }

    /// Ends them.
    #[must_use]
    pub fn close(self, title: &str) -> String {
        match self {
            Self::GitHub => "::endgroup::\n".to_owned(),
            Self::GitLab => format!("\u{1b}[0Ksection_end:{}:{}\r\u{1b}[0K\n", now(), section(title)),
            Self::TeamCity => format!("##teamcity[blockClosed name='{}']\n", teamcity(title)),
        }
    }

    /// Marks the run; nothing where a pipeline has no way to say so in its log.
    #[must_use]
    pub fn mark(self, mark: &Mark) -> String {
        match self {
            Self::GitHub => {
                let place = mark
                    .place
                    .as_ref()
                    .map(|(file, line, column)| format!("file={},line={line},col={column},", property(file)));
                format!("::error {}title={}::{}\n", place.unwrap_or_default(), property(&mark.title), github(&mark.text))
            }
            Self::GitLab => String::new(),
            Self::TeamCity => {
                // Longer ones are refused.
                let text: String = format!("{}: {}", mark.title, mark.text).chars().take(4000).collect();
                format!("##teamcity[buildProblem description='{}']\n", teamcity(&text))
            }
        }
    }
}

/// What follows `::` of a workflow command: one line, whatever was in it.
fn github(text: &str) -> String {
    safe(&text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A"))
}

fn property(text: &str) -> String {
    github(text).replace(':', "%3A").replace(',', "%2C")
}

fn teamcity(text: &str) -> String {
    let text = text.replace('|', "||").replace('\'', "|'").replace('\n', "|n").replace('\r', "|r");
    safe(&text.replace('[', "|[").replace(']', "|]"))
}

fn line(text: &str) -> String {
    safe(&text.replace(['\n', '\r'], " "))
}

/// A section's name in GitLab: letters, digits, and little else.
fn section(title: &str) -> String {
    title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// Evidence comes from applications: its control characters are shown, not obeyed.
fn safe(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_unicode().collect() } else { vec![c] }).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{Mark, Pipeline};

    #[test]
    fn the_environment_says_which_pipeline_it_is() {
        let of = |name: &str, value: &str| Pipeline::of(|asked| (asked == name).then(|| value.to_owned()));
        assert_eq!(of("GITHUB_ACTIONS", "true"), Some(Pipeline::GitHub));
        assert_eq!(of("GITLAB_CI", "true"), Some(Pipeline::GitLab));
        assert_eq!(of("TEAMCITY_VERSION", "2026.1"), Some(Pipeline::TeamCity));
        assert_eq!([of("GITHUB_ACTIONS", "false"), of("CI", "true")], [None, None]);
    }

    #[test]
    fn hostile_text_ends_no_mark_and_moves_no_cursor() {
        let mark = Mark { title: "shop: 1,0".into(), text: "100%\n::error::\u{1b}[2J it's [x|y]".into(), place: None };
        assert_eq!(Pipeline::GitHub.mark(&mark), "::error title=shop%3A 1%2C0::100%25%0A::error::\\u{1b}[2J it's [x|y]\n");
        assert_eq!(
            Pipeline::TeamCity.mark(&mark),
            "##teamcity[buildProblem description='shop: 1,0: 100%|n::error::\\u{1b}|[2J it|'s |[x||y|]']\n"
        );
        let placed = Mark { place: Some(("baton.toml".into(), 3, 5)), ..mark };
        assert!(Pipeline::GitHub.mark(&placed).starts_with("::error file=baton.toml,line=3,col=5,title="));
    }

    #[test]
    fn what_is_opened_is_closed_by_the_same_name() {
        assert_eq!(Pipeline::GitHub.open("shop 2.1.0"), "::group::shop 2.1.0\n");
        let opened = Pipeline::GitLab.open("shop 2.1.0");
        assert!(opened.contains(":shop_2_1_0\r") && opened.ends_with("shop 2.1.0\n"), "{opened:?}");
        assert!(Pipeline::GitLab.close("shop 2.1.0").contains(":shop_2_1_0\r"));
        assert_eq!(Pipeline::TeamCity.close("a'b"), "##teamcity[blockClosed name='a|'b']\n");
    }
}

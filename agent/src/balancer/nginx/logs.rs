//! Where a configuration sends its access logs: whether Baton may listen beside them, and who is not heard.
//!
//! nginx's `access_log` is inherited as a whole. One in http { } is in effect only where no other is nearer, and takes the
//! place of the log that nginx writes by default: so Baton's own stands there only beside one that somebody chose.

use super::line::FORMAT;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

/// Files that include each other.
const DEPTH_MAX: u32 = 16;

/// What a configuration says of access logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Logs {
    pub(super) http: HttpLog,
    /// Blocks that send requests to Baton's pools and log them elsewhere only.
    pub(super) unheard: BTreeSet<String>,
}

/// The `access_log` of http { }, Baton's own aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum HttpLog {
    /// None: nginx writes one by default.
    #[default]
    Implied,
    Chosen,
    Off,
}

/// A configuration as `nginx -T` prints it.
struct Walk<'a> {
    files: BTreeMap<&'a str, Vec<Token>>,
    /// Baton's own file.
    own: &'a str,
    pools: BTreeSet<String>,
    logs: Logs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

/// A block that is open.
#[derive(Debug, Default)]
struct Block {
    name: String,
    file: String,
    logs: bool,
    off: bool,
    /// It logs to Baton.
    heard: bool,
    /// It sends requests to a pool, or a block within it does that says nothing of logs.
    passes: bool,
}

impl Logs {
    /// Reads the output of `nginx -T`; `own` is Baton's file, as nginx names it.
    pub(super) fn of(text: &str, own: &str) -> Self {
        let mut walk = Walk { files: files(text), own, pools: BTreeSet::new(), logs: Self::default() };
        walk.pools = walk.own_upstreams();
        let Some(main) = text.lines().find_map(file_name) else { return Self::default() };
        walk.file(main, &mut Vec::new(), 0);
        walk.logs
    }

    pub(super) fn may_listen(&self) -> bool {
        self.http == HttpLog::Chosen
    }
}

impl Walk<'_> {
    fn own_upstreams(&self) -> BTreeSet<String> {
        let tokens = self.files.get(self.own).map_or(&[][..], Vec::as_slice);
        let named = tokens.windows(2).filter_map(|pair| match pair {
            [Token::Word(word), Token::Word(name)] if word == "upstream" => Some(name.clone()),
            _ => None,
        });
        named.collect()
    }

    fn file(&mut self, name: &str, open: &mut Vec<Block>, depth: u32) {
        let Some(tokens) = self.files.get(name).cloned().filter(|_| depth < DEPTH_MAX) else { return };
        let mut words: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                Token::Word(word) => words.push(word),
                Token::End => {
                    let words = take(&mut words);
                    match words.first().map(String::as_str) {
                        Some("include") => self.included(words.get(1), open, depth),
                        _ if name != self.own => self.directive(&words, open),
                        _ => {}
                    }
                }
                Token::Open => {
                    let name_of = take(&mut words).into_iter().next().unwrap_or_default();
                    open.push(Block { name: name_of, file: name.to_owned(), ..Block::default() });
                }
                Token::Close => self.close(open),
            }
        }
    }

    fn included(&mut self, pattern: Option<&String>, open: &mut Vec<Block>, depth: u32) {
        let Some(pattern) = pattern else { return };
        // A relative one is relative to a folder that is not said.
        let anywhere = if pattern.starts_with('/') { pattern.clone() } else { format!("/{pattern}") };
        let fits = |file: &str| {
            let tail = file.match_indices('/').map(|(at, _)| &file[at..]);
            if pattern.starts_with('/') {
                matches(&anywhere, file)
            } else {
                tail.into_iter().any(|it| matches(&anywhere, it))
            }
        };
        let files: Vec<String> = self.files.keys().filter(|file| fits(file)).map(|file| (*file).to_owned()).collect();
        for file in files {
            self.file(&file, open, depth + 1);
        }
    }

    fn directive(&self, words: &[String], open: &mut [Block]) {
        let Some(block) = open.last_mut() else { return };
        match words {
            [name, target, rest @ ..] if name == "access_log" => match target.as_str() {
                "off" => block.off = true,
                _ if rest.first().is_some_and(|format| format == FORMAT) => block.heard = true,
                _ => block.logs = true,
            },
            [name, target, ..] if name.ends_with("_pass") => {
                let to = target.split_once("://").map_or(target.as_str(), |(_, rest)| rest);
                let to = to.split('/').next().unwrap_or_default();
                block.passes |= to.starts_with("$baton_") || self.pools.contains(to);
            }
            _ => {}
        }
    }

    fn close(&mut self, open: &mut Vec<Block>) {
        let Some(block) = open.pop() else { return };
        if block.name == "http" && open.is_empty() {
            self.logs.http = match (block.off, block.logs || block.heard) {
                (true, _) => HttpLog::Off,
                (false, true) => HttpLog::Chosen,
                (false, false) => HttpLog::Implied,
            };
        } else if block.passes && !block.heard && block.logs && !block.off {
            self.logs.unheard.insert(format!("{} of {}", block.name, block.file));
        } else if let Some(around) = open.last_mut().filter(|_| block.passes && !block.heard && !block.off) {
            around.passes = true;
        }
    }
}

fn file_name(line: &str) -> Option<&str> {
    line.strip_prefix("# configuration file ")?.strip_suffix(':')
}

fn files(text: &str) -> BTreeMap<&str, Vec<Token>> {
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    let mut now = None;
    for line in text.lines() {
        match (file_name(line), now) {
            (Some(name), _) => {
                now = Some(name);
                files.insert(name, String::new());
            }
            (None, Some(name)) => files.entry(name).or_default().extend([line, "\n"]),
            (None, None) => {}
        }
    }
    files.into_iter().map(|(name, text)| (name, tokens(&text))).collect()
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' if word.is_none() => {
                let mut quoted = String::new();
                while let Some(inner) = chars.next().filter(|inner| *inner != c) {
                    quoted.push(if inner == '\\' { chars.next().unwrap_or(inner) } else { inner });
                }
                tokens.push(Token::Word(quoted));
            }
            '#' if word.is_none() => drop(chars.find(|c| *c == '\n')),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            // `${name}` is one word.
            '{' if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                word.get_or_insert_default().push_str(&name);
            }
            ';' | '{' | '}' => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(match c {
                    ';' => Token::End,
                    '{' => Token::Open,
                    _ => Token::Close,
                });
            }
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens
}

/// Whether a path fits a pattern with `*` and `?`.
fn matches(pattern: &str, path: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return path.is_empty() };
    let rest = pattern.get(first.len_utf8()..).unwrap_or_default();
    let mut chars = path.chars();
    match (first, chars.next()) {
        ('*', None) => matches(rest, path),
        ('*', Some(c)) => matches(rest, path) || c != '/' && matches(pattern, chars.as_str()),
        ('?', Some(c)) => c != '/' && matches(rest, chars.as_str()),
        (first, Some(c)) => first == c && matches(rest, chars.as_str()),
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/etc/nginx/baton.conf";

    fn logs(http: &str, site: &str) -> Logs {
        let own = "upstream shop {\n server 127.0.0.1:1 down;\n}\naccess_log syslog:server=127.0.0.1:1 baton;\n";
        Logs::of(
            &format!(
                "nginx: the configuration file is ok\n# configuration file /etc/nginx/nginx.conf:\nevents {{ }}\nhttp {{\n\
                 {http}\n include /etc/nginx/baton.conf;\n include sites-enabled/*;\n}}\n\n# configuration file {OWN}:\n{own}\n\
                 # configuration file /etc/nginx/sites-enabled/shop.conf:\n{site}\n"
            ),
            OWN,
        )
    }

    #[test]
    fn ours_stands_only_beside_one_that_somebody_chose() {
        let http = |http, site| logs(http, site).http;
        let chosen = "log_format long '$a; ${b}}' \"{\"; access_log /var/log/nginx/access.log long;";
        assert_eq!(http(chosen, ""), HttpLog::Chosen);
        assert_eq!(http("", "access_log /var/log/nginx/shop.log;"), HttpLog::Chosen);
        assert_eq!(http("# access_log /var/log/nginx/access.log;", "server { access_log x; }"), HttpLog::Implied);
        assert_eq!(http("access_log off;", "access_log /var/log/nginx/shop.log;"), HttpLog::Off);
        assert_eq!(Logs::of("", OWN), Logs::default());
    }

    #[test]
    fn who_logs_elsewhere_only_is_named() {
        let unheard = |site| logs("access_log a;", site).unheard.into_iter().collect::<Vec<_>>();
        let server = ["server of /etc/nginx/sites-enabled/shop.conf"];
        assert_eq!(unheard("server { access_log x; location / { proxy_pass http://$baton_shop; } }"), server);
        assert_eq!(unheard("server { access_log x main; location / { if ($a) { proxy_pass http://shop/a; } } }"), server);
        assert!(unheard("server { access_log x; access_log y baton; location / { proxy_pass http://shop; } }").is_empty());
        assert!(unheard("server { location / { proxy_pass http://shop; } }").is_empty());
        assert!(unheard("server { access_log x; location / { proxy_pass http://blog; } }").is_empty());
        assert!(unheard("server { access_log x; location /up { access_log off; proxy_pass http://shop; } }").is_empty());
    }

    #[test]
    fn patterns_stay_within_a_folder() {
        assert!(matches("/etc/nginx/*.conf", "/etc/nginx/a.conf") && matches("/a?c", "/abc"));
        assert!(!matches("/etc/nginx/*.conf", "/etc/nginx/a/b.conf") && !matches("/a", "/ab"));
    }
}

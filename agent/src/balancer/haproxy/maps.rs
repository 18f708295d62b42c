//! Shares and rules as HAProxy's maps: what haproxy.cfg reads, this writes, on disk first and then over the socket.
//!
//! The names of the maps say what haproxy.cfg was prepared for, because a header's name cannot be read from a map:
//! `shop:share.map`, `shop:sticky-cookie:uid.map`, `shop:header:x-beta.map`. One of the first two kinds has the share, under
//! the one key there is; the others have a line for each value that leads to the trial side.

use super::socket;
use crate::balancer::driver::SplitSeen;
use crate::balancer::{durable, problem};
use baton_core::fleet::ability::{Feature, SplitAbility};
use baton_core::fleet::split::{Rule, RuleAt, Share, TrafficSplit, UserKey};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// The key of the share.
const SHARE: &str = "split";

/// What the key of a value that a rule names leads to; haproxy.cfg only asks whether there is one.
const TRIAL: &str = "trial";

/// One map's lines.
type Lines = BTreeMap<String, String>;

/// What haproxy.cfg has of each pool, by what it is for.
#[derive(Debug)]
pub(super) struct Maps {
    /// The folder haproxy.cfg names them in; None: requests are never divided.
    folder: Option<PathBuf>,
    prepared: BTreeMap<PoolName, BTreeSet<Feature>>,
    /// Its backends; None: not seen yet.
    backends: Option<BTreeSet<String>>,
}

impl Maps {
    pub(super) const fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, prepared: BTreeMap::new(), backends: None }
    }

    pub(super) fn ability(&self) -> SplitAbility {
        match self.prepared.is_empty() {
            true => SplitAbility::None,
            false => SplitAbility::Prepared(self.prepared.clone()),
        }
    }

    /// The backends a manifest can name.
    pub(super) fn pools(&self) -> Option<BTreeSet<PoolName>> {
        Some(self.backends.as_ref()?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    pub(super) fn is_prepared(&self, pool: &PoolName) -> bool {
        self.prepared.contains_key(pool)
    }

    /// Learns what this process was prepared for. A pool counts when it has a second backend for its members on trial.
    pub(super) async fn learn(&mut self, path: &Path) -> Result<(), Problem> {
        let blocks = socket::ask(path, &["show map", "show backend"]).await?;
        let mut blocks = blocks.iter();
        let (maps, backends) = (blocks.next(), blocks.next());
        let backends = backends.into_iter().flat_map(|block| block.lines()).map(|line| line.trim().to_owned());
        let backends: BTreeSet<String> = backends.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let folder = self.folder.as_deref();
        let names = maps.into_iter().flat_map(|block| block.lines()).filter_map(|line| {
            let (_, rest) = line.split_once('(')?;
            Path::new(rest.split_once(')')?.0).strip_prefix(folder?).ok()?.to_str()
        });
        let mut prepared: BTreeMap<PoolName, BTreeSet<Feature>> = BTreeMap::new();
        for (pool, feature) in names.filter_map(parse) {
            if backends.contains(super::trial(&pool).as_str()) {
                prepared.entry(pool).or_default().insert(feature);
            }
        }
        self.prepared = prepared;
        self.backends = Some(backends);
        Ok(())
    }

    /// Reads back how a pool's requests are divided, by what runs and by what is on disk.
    pub(super) async fn look(
        &self,
        path: &Path,
        pool: &PoolName,
        wanted: Option<&TrafficSplit>,
    ) -> Result<Option<SplitSeen>, Problem> {
        let Some((folder, features)) = self.folder.as_ref().zip(self.prepared.get(pool)) else { return Ok(None) };
        let files: Vec<(&Feature, PathBuf)> =
            features.iter().map(|feature| (feature, folder.join(name(pool, feature)))).collect();
        let commands: Vec<String> = files.iter().map(|(_, file)| format!("show map {}", file.display())).collect();
        let blocks = socket::ask(path, &commands).await?;
        let running = files.iter().zip(&blocks).map(|((feature, _), block)| ((*feature).clone(), running(block))).collect();
        let mut disk = BTreeMap::new();
        for (feature, file) in &files {
            disk.insert((*feature).clone(), written(file)?);
        }
        let (running, on_disk) = (read(&running, wanted), read(&disk, wanted));
        let seen = SplitSeen { running, on_disk, ..SplitSeen::default() };
        Ok((seen.running.is_some() || seen.on_disk.is_some()).then_some(seen))
    }

    /// Makes HAProxy divide a pool's requests: the files first, then each map in one swap.
    pub(super) async fn divide(&self, path: &Path, pool: &PoolName, split: Option<&TrafficSplit>) -> Result<(), Problem> {
        let Some((folder, features)) = self.folder.as_ref().zip(self.prepared.get(pool)) else { return Ok(()) };
        let maps: Vec<(PathBuf, Lines)> = features
            .iter()
            .map(|feature| (folder.join(name(pool, feature)), split.map_or_else(Lines::new, |split| lines(split, feature))))
            .collect();
        for (file, lines) in &maps {
            let text: String = lines.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
            durable::replace(file, text).await.map_err(|error| problem::state_file(file, &error))?;
        }
        let prepare: Vec<String> = maps.iter().map(|(file, _)| format!("prepare map {}", file.display())).collect();
        let versions = socket::ask(path, &prepare).await?;
        let mut swap = Vec::new();
        for ((file, lines), answer) in maps.iter().zip(&versions) {
            let version = answer.trim().strip_prefix("New version created: ").and_then(|text| text.parse::<u64>().ok());
            let version = version.ok_or_else(|| problem::socket_garbage(path, answer))?;
            let file = file.display();
            swap.extend(lines.iter().map(|(key, value)| format!("add map @{version} {file} {key} {value}")));
            swap.push(format!("commit map @{version} {file}"));
        }
        socket::ask(path, &swap).await.map(drop)
    }
}

/// What a map of this name is for.
fn parse(file: &str) -> Option<(PoolName, Feature)> {
    let mut words = file.strip_suffix(".map")?.split(':');
    let pool = words.next()?.parse().ok()?;
    let feature = match (words.next()?, words.next(), words.next()) {
        ("share", None, None) => Feature::share(),
        ("sticky-source", None, None) => Feature::sticky(&UserKey::Source),
        ("sticky-cookie", Some(name), None) => Feature::sticky(&UserKey::Cookie(name.to_owned())),
        ("sticky-header", Some(name), None) => Feature::sticky(&UserKey::Header(name.to_owned())),
        ("header", Some(name), None) => Feature::rule(RuleAt::Header, name),
        ("cookie", Some(name), None) => Feature::rule(RuleAt::Cookie, name),
        _ => return None,
    };
    Some((pool, feature))
}

fn name(pool: &PoolName, feature: &Feature) -> String {
    let feature = feature.0.replacen("sticky ", "sticky-", 1).replace(' ', ":");
    format!("{pool}:{feature}.map")
}

/// The lines a split has in the map of a feature.
fn lines(split: &TrafficSplit, feature: &Feature) -> Lines {
    let share = split.sticky.as_ref().map_or_else(Feature::share, Feature::sticky);
    if *feature == share {
        return [(SHARE.to_owned(), split.share.places().to_string())].into();
    }
    let rules = split.rules.iter().filter(|rule| Feature::rule(rule.at, &rule.name) == *feature);
    rules.map(|rule| (rule.value.clone(), TRIAL.to_owned())).collect()
}

/// The split that maps mean: the wanted one, in its own words, when they are just what it would be.
fn read(maps: &BTreeMap<Feature, Lines>, wanted: Option<&TrafficSplit>) -> Option<TrafficSplit> {
    if let Some(wanted) = wanted.filter(|wanted| maps.iter().all(|(feature, seen)| lines(wanted, feature) == *seen)) {
        return Some(wanted.clone());
    }
    let mut split = TrafficSplit::default();
    for (Feature(feature), lines) in maps {
        if let Some(share) = lines.get(SHARE).filter(|_| *feature == "share" || feature.starts_with("sticky ")) {
            split.share = Share::of_places(share.parse().unwrap_or_default());
            split.sticky = feature.strip_prefix("sticky ").and_then(|key| key.parse().ok());
        } else {
            let rule = |value: &String| format!("{feature} = {value}").parse::<Rule>().ok();
            split.rules.extend(lines.keys().filter_map(rule));
        }
    }
    maps.values().any(|lines| !lines.is_empty()).then_some(split)
}

/// The lines of `show map PATH`: an address, a key, a value.
fn running(block: &str) -> Lines {
    block.lines().filter_map(|line| pair(line.split_once(' ')?.1)).collect()
}

fn written(file: &Path) -> Result<Lines, Problem> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().filter(|line| !line.starts_with('#')).filter_map(pair).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lines::new()),
        Err(error) => Err(problem::state_file(file, &error)),
    }
}

fn pair(line: &str) -> Option<(String, String)> {
    let mut words = line.split_ascii_whitespace();
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_named_after_what_it_is_for() {
        for file in ["shop:share.map", "shop:sticky-cookie:uid.map", "a.b_c:sticky-source.map", "shop:header:x-beta.map"] {
            let (pool, feature) = parse(file).unwrap();
            assert_eq!(name(&pool, &feature), file);
        }
        for file in ["shop.map", "shop:share:x.map", "shop:path:x.map", "shop:header.map", "shop:share"] {
            assert_eq!(parse(file), None, "{file}");
        }
    }

    #[test]
    fn maps_mean_the_split_they_were_written_for() {
        let features = ["share", "sticky cookie uid", "header x-beta", "cookie cohort"].map(|it| Feature(it.to_owned()));
        let write = |split: &TrafficSplit| features.iter().map(|it| (it.clone(), lines(split, it))).collect();
        let mut split = TrafficSplit { share: Share::of_places(500), ..TrafficSplit::default() };
        split.rules = ["header X-Beta = 1", "header X-Beta = 2"].iter().map(|rule| rule.parse().unwrap()).collect();
        assert_eq!(read(&write(&split), Some(&split)), Some(split.clone()));
        let other = TrafficSplit { share: Share::NONE, sticky: Some("cookie uid".parse().unwrap()), rules: Vec::new() };
        assert_eq!(read(&write(&other), Some(&split)), Some(other));
        assert_eq!(read(&features.iter().map(|it| (it.clone(), Lines::new())).collect(), None), None);
    }
}

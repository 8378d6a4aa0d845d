//! What a container says of a data directory and of what is left beside it. Judges nothing.

use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{ContainerError, Error, LOOK_LIMIT, Shell, compact, last_words};
use crate::domain::{
    bgsave::Room,
    frames::{FileState, Tool},
    persistence::Persistence,
};

const SCRIPT: &str = include_str!("look.sh");

/// A line for each of a directory's few files; one with more is no data directory.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) directory: String,
    /// The best that is there.
    pub(super) tool: Option<Tool>,
    pub(super) dumps: Vec<(FileState, String)>,
    /// Lists of append-only files, by their paths in the directory.
    pub(super) lists: Vec<String>,
    disk_bytes: Option<u64>,
    memory_limit: Option<u64>,
    memory_used: Option<u64>,
    machine_bytes: Option<u64>,
    machine_available: Option<u64>,
    is_whole: bool,
}

pub(super) async fn look(
    shell: &dyn Shell,
    directory: Option<&str>,
    process_id: u32,
    dbfilename: Option<&str>,
    mounted: Option<&str>,
) -> Result<Seen, Error> {
    let place = || shell.to_string();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let arguments = [text(directory), process_id.to_string(), text(dbfilename), text(mounted)];
    let looked = async {
        let running = shell.run(&compact(SCRIPT), &arguments).await;
        let running = running.map_err(|source| ContainerError::Start { place: place(), source })?;
        let mut output = Vec::new();
        // What cannot be read to its end is not whole.
        let _ = running.output.take(OUTPUT_BYTES_MAX).read_to_end(&mut output).await;
        let seen = Seen::parse(&String::from_utf8_lossy(&output));
        if seen.is_whole && seen.disk_bytes.is_some() {
            return Ok(seen);
        }
        let ended = last_words(running.ended).await;
        let (place, finding) = (place(), ended.to_string());
        Err(if is_without_shell(&ended.to_string()) {
            ContainerError::NoShell { place, finding }
        } else {
            ContainerError::Look { place, finding }
        })
    };
    let late = |_| ContainerError::Look {
        place: place(),
        finding: format!("no answer within {} s", LOOK_LIMIT.as_secs()),
    };
    Ok(timeout(LOOK_LIMIT, looked).await.map_err(late)??)
}

/// As runc and crun say it.
fn is_without_shell(finding: &str) -> bool {
    finding.contains("executable file") || finding.contains("no such file or directory")
}

impl Seen {
    fn parse(text: &str) -> Self {
        let mut seen = Self::default();
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let kibibytes = || rest.parse::<u64>().ok().map(|count| count << 10);
            match word {
                "directory" => rest.clone_into(&mut seen.directory),
                "tool" => seen.tool = seen.tool.or(rest.parse().ok()),
                "disk" => seen.disk_bytes = available(rest).or(seen.disk_bytes),
                "memory-limit" => seen.memory_limit = rest.parse().ok(),
                "memory-used" => seen.memory_used = rest.parse().ok(),
                "memory-MemTotal" => seen.machine_bytes = kibibytes(),
                "memory-MemAvailable" => seen.machine_available = kibibytes(),
                "dump" => seen.dumps.extend(dump(rest)),
                "list" => seen.lists.push(rest.to_owned()),
                "done" => seen.is_whole = true,
                _ => {}
            }
        }
        seen
    }

    /// Files in the page cache can be given up and do not count as used memory.
    pub(super) fn room(&self, node: &Persistence) -> Room {
        let limit = self.memory_limit.filter(|limit| Some(*limit) < self.machine_bytes);
        let of_group = limit.zip(self.memory_used).map(|(limit, used)| limit.saturating_sub(used));
        let is_its_machine = self.machine_bytes == node.machine_memory_bytes;
        let of_machine = self.machine_available.filter(|_| is_its_machine);
        Room {
            disk_bytes: self.disk_bytes.unwrap_or(0),
            last_dump_bytes: self.dumps.iter().map(|(state, _)| state.bytes).max().unwrap_or(0),
            memory_bytes: [of_group, of_machine].into_iter().flatten().min(),
        }
    }
}

/// Of a line of `df -P -k`, whose first and last word may hold spaces.
fn available(line: &str) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let used = words.iter().rposition(|word| word.ends_with('%'))?;
    words.get(used.checked_sub(1)?)?.parse::<u64>().ok().map(|count| count << 10)
}

fn dump(text: &str) -> Option<(FileState, String)> {
    let (place, _) = text.match_indices(' ').nth(3)?;
    let (state, name) = text.split_at(place);
    Some((FileState::parse(state)?, name.get(1..)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_says_is_understood_and_half_of_it_is_nothing() {
        let text = "look 1\ndirectory /my data\ntool sha256sum\ntool cksum\n\
            disk Filesystem 1024-blocks Used Available Capacity Mounted on\n\
            disk /dev/mapper/my disk 100 40 60 40% /my data\nmemory-limit 1000\nmemory-used 300\n\
            memory-MemTotal 8\nmemory-MemAvailable 4\ndump 1 2 30 -4 My Dump.rdb\nlist a/b.manifest\ndone\n";
        let seen = Seen::parse(text);
        assert_eq!((seen.directory.as_str(), seen.tool), ("/my data", Some(Tool::Sha256sum)));
        assert_eq!(seen.dumps[0].1, "My Dump.rdb");
        assert_eq!(seen.lists, ["a/b.manifest"]);
        let room = seen.room(&Persistence::default());
        let expected = Room { disk_bytes: 60 << 10, last_dump_bytes: 30, memory_bytes: Some(700) };
        assert_eq!(room, expected);
        assert!(seen.is_whole && !Seen::parse(text.strip_suffix("done\n").unwrap()).is_whole);
    }

    #[test]
    fn a_group_without_a_limit_tells_nothing_of_memory() {
        let seen =
            Seen::parse("memory-limit 9223372036854771712\nmemory-used 1\nmemory-MemTotal 8\n");
        assert_eq!(seen.room(&Persistence::default()).memory_bytes, None);
    }
}

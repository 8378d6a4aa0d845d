//! The file that says which files are an append-only set: Redis's own manifest of it. Never opens what it names.
//!
//! Read and written as by aof.c:aofLoadManifestFromFile and aofInfoFormat.

use crate::domain::sds;

/// What is longer is no list of a server.
pub const BYTES_MAX: usize = 1 << 20;

/// Longest line with its end (`MANIFEST_MAX_LINE`).
const LINE_BYTES_MAX: usize = 1024;

/// No file system takes longer names.
const NAME_BYTES_MAX: usize = 255;

/// `<appendfilename>.manifest`
pub const EXTENSION: &str = ".manifest";

/// A list that a server would load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileList {
    /// In the order of their lines; bases and increments of which are unique by name.
    files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// A plain name without a path.
    pub name: String,
    pub sequence: u64,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Base,
    /// What an earlier set held; the server deletes it and never loads it.
    History,
    Increment,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line} of the list of append-only files: {finding}")]
    Line { line: usize, finding: String },
    #[error("the list of append-only files names none to load")]
    Empty,
    #[error("the list of append-only files is longer than {BYTES_MAX} bytes")]
    TooLong,
}

impl FileList {
    /// Of files in their order; refuses what a server would refuse.
    pub fn new(files: Vec<File>) -> Result<Self, Error> {
        let mut list = Self { files: Vec::new() };
        for (index, file) in files.into_iter().enumerate() {
            list.add(file).map_err(|finding| Error::Line { line: index + 1, finding })?;
        }
        if list.load_order().next().is_none() { Err(Error::Empty) } else { Ok(list) }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > BYTES_MAX {
            return Err(Error::TooLong);
        }
        let mut list = Self { files: Vec::new() };
        for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let refuse = |finding: String| Error::Line { line: index + 1, finding };
            let Some(text) = line.strip_suffix(b"\n") else {
                return Err(refuse("it has no end, so the file was cut".to_owned()));
            };
            if line.len() > LINE_BYTES_MAX {
                return Err(refuse(format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            if !text.starts_with(b"#") {
                file(text).and_then(|file| list.add(file)).map_err(refuse)?;
            }
        }
        if list.load_order().next().is_none() { Err(Error::Empty) } else { Ok(list) }
    }

    /// Every file of the list, those of history too.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// As the server loads them: the base, then the increments.
    pub fn load_order(&self) -> impl Iterator<Item = &File> {
        let of = |role| self.files.iter().filter(move |file| file.role == role);
        of(Role::Base).chain(of(Role::Increment))
    }

    /// Base, history, increments: the order in which a server writes them.
    pub fn encode(&self) -> String {
        let of = |role| self.files.iter().filter(move |file| file.role == role);
        let files = of(Role::Base).chain(of(Role::History)).chain(of(Role::Increment));
        files.map(File::line).collect()
    }

    fn add(&mut self, file: File) -> Result<(), String> {
        check_name(&file.name)?;
        if file.line().len() > LINE_BYTES_MAX {
            // Read bare, it would be written in quotes, which no server reads again.
            return Err(format!("its name in quotes makes it longer than {LINE_BYTES_MAX} bytes"));
        }
        if file.sequence == 0 {
            return Err("its seq is no number above zero".to_owned());
        }
        match file.role {
            Role::Base if self.files.iter().any(|other| other.role == Role::Base) => {
                return Err("it names a second base".to_owned());
            }
            Role::Increment => {
                let mut increments =
                    self.files.iter().rev().filter(|other| other.role == Role::Increment);
                if let Some(before) = increments.next()
                    && file.sequence <= before.sequence
                {
                    return Err(format!("seq {} follows {}", file.sequence, before.sequence));
                }
            }
            Role::Base | Role::History => {}
        }
        if file.role != Role::History
            && self.files.iter().any(|it| it.role != Role::History && it.name == file.name)
        {
            return Err(format!("{:?} is named twice", file.name));
        }
        self.files.push(file);
        Ok(())
    }
}

impl File {
    fn line(&self) -> String {
        let Self { name, sequence, role } = self;
        format!("file {} seq {sequence} type {}\n", sds::quoted(name), role.letter())
    }
}

impl Role {
    const fn letter(self) -> char {
        match self {
            Self::Base => 'b',
            Self::History => 'h',
            Self::Increment => 'i',
        }
    }

    fn of_letter(letter: u8) -> Option<Self> {
        [Self::Base, Self::History, Self::Increment]
            .into_iter()
            .find(|role| role.letter() == char::from(letter))
    }
}

/// Redis takes plain names only here (util.c:pathIsBaseName), and nothing may leave a folder.
pub fn check_name(name: &str) -> Result<(), String> {
    let finding = match name {
        "" => "is empty",
        "." | ".." => "is a folder's",
        text if text.contains(['/', '\\']) => "is a path",
        text if text.contains('\0') => "holds a zero byte",
        text if text.len() > NAME_BYTES_MAX => "is longer than a name may be",
        _ => return Ok(()),
    };
    Err(format!("the file's name {name:?} {finding}"))
}

/// One line: pairs of a key and what it says, of which a server ignores those that it does not know.
fn file(line: &[u8]) -> Result<File, String> {
    let words = sds::split(line).ok_or_else(|| "unbalanced quotes".to_owned())?;
    if words.len() < 6 || !words.len().is_multiple_of(2) {
        return Err("it is not of the form `file NAME seq NUMBER type b|i|h`".to_owned());
    }
    let (mut name, mut sequence, mut role) = (None, None, None);
    for pair in words.chunks_exact(2) {
        let [key, value] = pair else { continue };
        match key.to_ascii_lowercase().as_slice() {
            b"file" => {
                let text = String::from_utf8(value.clone());
                name = Some(text.map_err(|_| "the file's name is not UTF-8".to_owned())?);
            }
            b"seq" => sequence = std::str::from_utf8(value).ok().and_then(|it| it.parse().ok()),
            b"type" => role = value.first().and_then(|&letter| Role::of_letter(letter)),
            _ => {}
        }
    }
    Ok(File {
        name: name.ok_or("it names no file")?,
        sequence: sequence.ok_or("its seq is no number")?,
        role: role.ok_or("its type is none of b, i and h")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileList, String> {
        FileList::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn names(list: &FileList) -> Vec<&str> {
        list.load_order().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn a_name_that_could_not_be_read_again_once_it_is_written_is_refused() {
        let list = |count: usize| {
            let name = "\u{11}".repeat(count);
            parse(&format!("file {name} seq 1 type i\n"))
        };
        let longest = list(250).unwrap();
        assert_eq!(parse(&longest.encode()).unwrap(), longest);
        assert!(list(251).unwrap_err().contains("its name in quotes"));
    }

    #[test]
    fn a_list_is_read_as_a_server_writes_it_and_written_again() {
        let text = "file a.2.base.rdb seq 2 type b\nfile a.1.base.rdb seq 1 type h\nfile a.1.incr.aof seq 1 type i\nfile a.2.incr.aof seq 2 type i\n";
        let list = parse(text).unwrap();
        assert_eq!(names(&list), ["a.2.base.rdb", "a.1.incr.aof", "a.2.incr.aof"]);
        assert_eq!(list.encode(), text);
    }

    #[test]
    fn names_are_free_and_quoted_and_other_keys_ignored() {
        let list = parse(
            "# of a person\n  FILE \"my \\\"old\\x20one\\\".rdb\"  seq 1 type base\nseq 7 startoffset 12 type i file Appendonly.aof.7 endoffset 99\n",
        )
        .unwrap();
        assert_eq!(names(&list), ["my \"old one\".rdb", "Appendonly.aof.7"]);
        assert_eq!(parse(&list.encode()).unwrap(), list);
    }

    #[test]
    fn increments_load_after_the_base_wherever_their_lines_stand() {
        let list = parse("file i seq 1 type i\nfile b seq 9 type b\n").unwrap();
        assert_eq!(names(&list), ["b", "i"]);
        assert_eq!(list.encode(), "file b seq 9 type b\nfile i seq 1 type i\n");
    }

    #[test]
    fn what_a_server_refuses_is_refused_with_its_line() {
        for (text, finding) in [
            ("", "names none"),
            ("# only a comment\n", "names none"),
            ("file a seq 1 type h\n", "names none"),
            ("file a seq 1 type b", "line 1"),
            ("file a seq 1 type b\n\n", "line 2"),
            ("file a seq 1 type b\nfile c seq 1 type b\n", "second base"),
            ("file a seq 2 type i\nfile c seq 2 type i\n", "seq 2 follows 2"),
            ("file a seq 2 type i\nfile c seq 1 type i\n", "seq 1 follows 2"),
            ("file a seq 1 type b\nfile a seq 2 type i\n", "named twice"),
            ("file a seq 0 type b\n", "above zero"),
            ("file a seq x type b\n", "no number"),
            ("file a seq 1 type x\n", "none of b, i and h"),
            ("file a/b seq 1 type b\n", "is a path"),
            ("file .. seq 1 type b\n", "a folder's"),
            ("file \"\" seq 1 type b\n", "is empty"),
            ("file \"a\\x00\" seq 1 type b\n", "zero byte"),
            ("file \"\\xff\" seq 1 type b\n", "not UTF-8"),
            ("file \"a seq 1 type b\n", "quotes"),
            ("file a seq 1\n", "form"),
            ("file a seq 1 type b more\n", "form"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(finding), "{text:?}: {error}");
        }
        let long = format!("file {} seq 1 type b\n", "a".repeat(1024));
        assert!(parse(&long).unwrap_err().contains("longer than 1024"));
        assert_eq!(FileList::parse(&vec![b'#'; BYTES_MAX + 1]), Err(Error::TooLong));
    }
}

//! All error codes. Each has a page in `docs/errors/`.

/// Declares the enum, its numbers and its titles from one table.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $title:literal;)+) => {
        /// A kind of mistake. Numbers are never used again for something else.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The number behind `TG-`.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)+ }
            }

            /// The title of its page.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

codes! {
    /// More than 1 MiB.
    TooLarge = 1, "file is too large";
    /// Bytes that are not UTF-8.
    NotUtf8 = 2, "file is not UTF-8";
    /// Not YAML.
    Syntax = 3, "not valid YAML";
    /// A tab where YAML wants spaces.
    Tab = 4, "tab in the indentation";
    /// Nothing in the file.
    Empty = 5, "file is empty";
    /// `---` between two documents.
    SeveralDocuments = 6, "more than one document";
    /// Deeper than 64 levels.
    TooDeep = 7, "nested too deeply";
    /// More than 100,000 values.
    TooManyNodes = 8, "too many values";
    /// Aliases that expand to too much.
    AliasBomb = 9, "aliases expand to too much";
    /// The same key twice in one mapping.
    DuplicateKey = 10, "duplicate key";
    /// A YAML tag.
    Tag = 11, "tag is not allowed";
    /// A control character, a byte order mark or a lone carriage return.
    Character = 12, "character is not allowed";
    /// A key that is a list, a mapping or empty.
    KeyNotText = 13, "key is not text";
    /// `<<` with something that is not a mapping.
    Merge = 14, "merge of something that is not a mapping";
    /// An anchor that contains itself, or is defined twice.
    Anchor = 15, "anchor cannot be used like this";
    /// More mistakes than are listed.
    Many = 16, "more mistakes than are listed";
    /// A key that the format does not know.
    UnknownKey = 20, "unknown key";
    /// A list where text belongs, and the like.
    WrongType = 21, "wrong type";
    /// A key that has to be there.
    MissingKey = 22, "key is missing";
    /// None or several of keys of which exactly one belongs there.
    ExactlyOne = 23, "exactly one of several keys";
    /// A word that is not among the allowed ones.
    NotAllowed = 24, "not one of the allowed words";
    /// `version:` of another format.
    FormatVersion = 25, "format version";
    /// A name with characters that names cannot have.
    Name = 26, "not a name";
    /// A duration without unit, or none at all.
    Duration = 27, "not a duration";
    /// A size without unit, or none at all.
    Size = 28, "not a size";
    /// A percentage outside of 0 to 100 or finer than tenths.
    Percentage = 29, "not a percentage";
    /// A number that is too small or too large.
    Range = 30, "number out of range";
    /// An address or a port.
    Address = 31, "not an address";
    /// A path or a URL.
    Path = 32, "not a path or URL";
    /// A command that is text or empty.
    Command = 33, "not a command";
    /// `{...}` that is not filled in there.
    Placeholder = 34, "placeholder is not known here";
    /// A status code or range.
    Status = 35, "not a status";
    /// Days, times or time zone of a window.
    Window = 36, "not a time window";
    /// `{env: NAME}` without that variable.
    EnvironmentVariable = 37, "environment variable is not set";
    /// `include:` of a file that cannot be read or must not be included.
    Include = 38, "file cannot be included";
    /// A key that belongs to another kind of check or probe.
    DoesNotApply = 39, "key does not apply here";
    /// A name that is not defined.
    Undefined = 40, "name is not defined";
    /// Environments that need each other.
    Cycle = 41, "environments need each other";
    /// A canary's weight below the one before.
    WeightDown = 42, "weight goes down";
    /// A canary's weight that is the one before.
    WeightSame = 43, "weight stays the same";
    /// A check that passes whatever it measures.
    NeverFails = 44, "check can never fail";
    /// Several measurements without a time between them.
    IntervalMissing = 45, "interval is missing";
    /// Two services for the same requests.
    SameRoute = 46, "two services for the same requests";
    /// `noData: pass`.
    NoDataPass = 47, "no data is not a pass";
    /// Something that nothing refers to.
    Unused = 48, "defined and never used";
    /// Every version would be read from the same path.
    ArtifactWithoutVersion = 49, "artifact without {version}";
    /// Understood, and not in this version.
    NotInThisVersion = 50, "not in this version";
    /// The same entry twice in a list.
    Twice = 51, "listed twice";
    /// A canary that goes from nothing to all requests at once.
    NoShare = 52, "canary takes no share of the requests";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TG-{:04}", self.number())
    }
}

impl Code {
    /// Where it is explained, relative to the root of Tidegate's sources.
    #[must_use]
    pub fn docs(self) -> String {
        format!("docs/errors/{self}.md")
    }
}

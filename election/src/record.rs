//! What is stored in the lock, as plain structs. How it is spelled in a store is the codec's business.

use std::fmt;
use std::time::Duration;

/// Reads 128 bits printed by `Display`: exactly 32 hexadecimal digits.
fn parse_hex128(text: &str) -> Option<u128> {
    let all_hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    all_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// The random identity of one process: the same name with another nonce is another member.
/// See docs/safety.md R10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u128);

impl Nonce {
    /// The nonce that `Display` printed as `text`, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex128(text).map(Self)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The random id of one time of being active. An activation that has ended never starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Activation(pub u128);

impl Activation {
    /// The activation that `Display` printed as `text`, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex128(text).map(Self)
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The id of one send: a counter for people, 64 random bits so that clones of a process diverge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// Counts the sends of one process.
    pub count: u64,
    /// Fresh randomness of this send.
    pub random: u64,
}

impl Attempt {
    /// The attempt that `Display` printed as `text`, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, random) = text.split_once('-')?;
        let random_is_hex = random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit());
        let count_is_decimal = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
        if !random_is_hex || !count_is_decimal {
            return None;
        }
        Some(Self { count: count.parse().ok()?, random: u64::from_str_radix(random, 16).ok()? })
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.count, self.random)
    }
}

/// A fencing token: strictly larger for every later activation of a group.
/// See docs/safety.md R11.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One process that takes part: a name that people chose and a nonce that nobody shares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The name, unique in a healthy group.
    pub name: String,
    /// The nonce of this process.
    pub nonce: Nonce,
}

/// What the lock says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Who has the lock, or how it was left.
    pub claim: Claim,
    /// How long observers wait, from their own first sight of a claim's (activation, attempt).
    pub lease: Duration,
    /// How many members of the group may be active at a time. What counts is what the lock of the first slot says.
    pub slots: u32,
    /// Until when a pause lasts, in wall-clock milliseconds since 1970, for display only.
    pub paused_until_unix_ms: Option<u64>,
}

/// Who has the lock, or how it was left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// A member of ours says that it is active.
    Held(Holder),
    /// An activation of ours ended and its member proved it: valid at first sight.
    Released(Release),
    /// Nobody has it: an observer found no lock and wrote this, to have a version that its wait can be counted on.
    Vacant(Vacancy),
    /// Nobody of ours wrote this, or it cannot be read: never free, whatever it seems to say.
    Foreign(Foreign),
}

/// The member that is active, as it wrote itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Name and nonce.
    pub member: Member,
    /// This time of being active.
    pub activation: Activation,
    /// The send that wrote this record.
    pub attempt: Attempt,
    /// The fencing token; absent in the acquiring write of a store that only names it in its answer.
    pub token: Option<Token>,
}

/// Stands in the place of a lock that was absent. An absent lock has no version: one that was created and deleted
/// again while nobody looked could not be told from one that was absent all the time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vacancy {
    /// Who found the lock absent.
    pub member: Member,
    /// The send that wrote this record.
    pub attempt: Attempt,
}

/// The last word of an activation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Release {
    /// Who released.
    pub member: Member,
    /// The activation that has ended.
    pub activation: Activation,
    /// The send that wrote this record.
    pub attempt: Attempt,
    /// Why nothing of it can be running any more.
    pub proof: Proof,
    /// Who may go first; the others give it a short courtesy.
    pub successor: Option<String>,
}

/// Why nothing of an activation can be running any more.
/// See docs/safety.md R15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// The workload was never started.
    NeverStarted,
    /// The subreaper has no child left (ECHILD) after the sweep.
    NoChildLeft,
    /// As PID 1 of a PID namespace, nobody else is left in it.
    NamespaceEmpty,
    /// The kernel says that the activation's cgroup is empty.
    CgroupEmpty,
    /// The host has booted since: no process of the earlier boot is left.
    Rebooted,
    /// The same container runs anew, and nothing holds what every process of the earlier run held.
    Restarted,
    /// The kubelet says that the very container has ended, and with it its PID namespace.
    Terminated,
}

impl Proof {
    /// All proofs.
    pub const ALL: [Proof; 7] = [
        Proof::NeverStarted,
        Proof::NoChildLeft,
        Proof::NamespaceEmpty,
        Proof::CgroupEmpty,
        Proof::Rebooted,
        Proof::Restarted,
        Proof::Terminated,
    ];

    /// The word that stands for it in records and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Proof::NeverStarted => "never-started",
            Proof::NoChildLeft => "no-child-left",
            Proof::NamespaceEmpty => "namespace-empty",
            Proof::CgroupEmpty => "cgroup-empty",
            Proof::Rebooted => "rebooted",
            Proof::Restarted => "restarted",
            Proof::Terminated => "terminated",
        }
    }

    /// The proof that `word` stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|proof| proof.word() == word)
    }
}

/// A record that no member of ours wrote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Foreign {
    /// The native holder, where the store has one and it is not empty.
    pub holder: Option<String>,
    /// Digest of everything that a live foreigner changes when it renews.
    pub fingerprint: u64,
    /// Why it is not ours, for people.
    pub why: String,
}

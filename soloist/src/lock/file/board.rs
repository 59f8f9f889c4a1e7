//! The notice board of a lock file: `PATH.members/`, `PATH.request` and `PATH.answer`.
//!
//! Nothing here is made durable: an announcement is old after two minutes and a request after ten seconds, so that
//! after a crash of the host all of it is void anyway. A file that is torn by such a crash is skipped.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::UNIX_EPOCH;

use election::{Entropy, Nonce};
use nix::sys::inotify::{AddWatchFlags, InotifyEvent, WatchDescriptor};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::deaths::Deaths;
use super::paths::{Inode, Paths, open_to_read};
use super::watch::Folders;
use super::{blocking, names_no_file, seen_by_anybody, store, unreadable};
use crate::entropy::KernelEntropy;
use crate::lock::LockError;
use crate::lock::board::{self, Answer, Asked, Asking, Board, Changes, Look};
use crate::snapshot::Announcement;
use crate::workload::process::{ProcessId, boot_id};

/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 8 * 1024;
/// As many announcements are read at most.
const MEMBERS_MAX: usize = 256;
/// As many names in the folder are looked at, whatever else lies there.
const NAMES_MAX: usize = 4096;
/// What an announcement's file is called after the nonce.
const SUFFIX: &str = ".json";
/// As many calls are under way at most.
const CALLS_MAX: usize = 8;
/// How often putting up a request is tried, while others do the same.
const ASK_TRIES: usize = 4;

/// The board of one lock file. Opening and reading it touches nothing.
pub struct FileBoard {
    files: Arc<Files>,
    slots: Arc<Semaphore>,
    ear: OnceLock<Ear>,
}

/// What the calls share that run on other threads.
struct Files {
    paths: Paths,
    /// Who writes here, once known.
    own: OnceLock<Option<Writer>>,
    /// Announcements that were complained about already.
    odd: Mutex<HashSet<OsString>>,
}

/// How changes are heard.
struct Ear {
    folders: Folders,
    deaths: Deaths,
    heard: Mutex<Heard>,
}

struct Heard {
    changes: Changes,
    /// The watch on the members' folder, while there is such a folder.
    members: Option<WatchDescriptor>,
}

/// An announcement as it is stored.
#[derive(Serialize, Deserialize)]
struct Posted {
    #[serde(flatten)]
    announcement: Announcement,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer: Option<Writer>,
}

/// The process that announces itself. It is looked for only where its PID means the same: within one boot and one PID
/// namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Writer {
    #[serde(flatten)]
    process: ProcessId,
    boot_id: String,
    pid_namespace: String,
}

impl Writer {
    fn own() -> Option<Self> {
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        Some(Self {
            process: ProcessId::own().ok()?,
            boot_id: boot_id().ok()?,
            pid_namespace: namespace.to_string_lossy().into_owned(),
        })
    }

    fn is_visible_to(&self, other: &Self) -> bool {
        (&self.boot_id, &self.pid_namespace) == (&other.boot_id, &other.pid_namespace)
    }
}

impl FileBoard {
    /// The board beside `lock_path`. Needs no right to write before something is put up.
    ///
    /// # Errors
    /// The path names no file, or its folder is not there.
    pub fn open(lock_path: &Path) -> Result<Self, LockError> {
        let given = Paths::of(lock_path).ok_or_else(|| names_no_file(lock_path))?;
        let folder = given.folder.canonicalize().map_err(|error| failed("find the folder", &given.folder, &error))?;
        let whole = folder.join(given.lock.file_name().unwrap_or_default());
        let paths = Paths::of(&whole).ok_or_else(|| names_no_file(lock_path))?;
        let files = Files { paths, own: OnceLock::new(), odd: Mutex::default() };
        Ok(Self { files: Arc::new(files), slots: Arc::new(Semaphore::new(CALLS_MAX)), ear: OnceLock::new() })
    }

    /// Runs what may wait for a disk on another thread. Calls that were given up go on: they must not take every thread
    /// that there is.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, LockError> + Send + 'static,
    ) -> Result<T, LockError> {
        let busy = |_| LockError::Unavailable("earlier calls have not ended yet".to_owned());
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(busy)?;
        let files = Arc::clone(&self.files);
        let work = move || {
            let _slot = slot;
            work(&files)
        };
        blocking(work).await.map_err(LockError::Unavailable)?
    }

    fn ear(&self) -> io::Result<&Ear> {
        if let Some(ear) = self.ear.get() {
            return Ok(ear);
        }
        let new = Ear::new(&self.files.paths)?;
        Ok(self.ear.get_or_init(|| new))
    }
}

impl Board for FileBoard {
    async fn announce(&self, own: &Announcement) -> Result<(), LockError> {
        let own = own.clone();
        self.run(move |files| files.announce(own)).await
    }

    async fn withdraw(&self, nonce: &str) -> Result<(), LockError> {
        let nonce = nonce.to_owned();
        self.run(move |files| files.withdraw(&nonce)).await
    }

    async fn look(&self) -> Result<Look, LockError> {
        let (look, processes) = self.run(Files::look).await?;
        if let Some(ear) = self.ear.get() {
            ear.deaths.watch(processes);
        }
        Ok(look)
    }

    async fn asked(&self) -> Result<Option<Asked>, LockError> {
        self.run(|files| Ok(files.request()?.filter(Asked::is_waiting))).await
    }

    async fn answer(&self, answer: &Answer) -> Result<(), LockError> {
        let answer = answer.clone();
        self.run(move |files| files.answer(&answer)).await
    }

    async fn ask(&self, asked: &Asked) -> Result<Asking, LockError> {
        let asked = asked.clone();
        self.run(move |files| files.ask(&asked)).await
    }

    async fn answered(&self, id: &str) -> Result<Option<Answer>, LockError> {
        let id = id.to_owned();
        self.run(move |files| Ok(files.last_answer()?.filter(|answer| answer.id == id))).await
    }

    async fn changed(&self) -> Result<Changes, LockError> {
        let paths = &self.files.paths;
        let failed = |error| failed("watch the board", &paths.lock, &error);
        let ear = self.ear().map_err(failed)?;
        loop {
            let changes = ear.take(paths).map_err(failed)?;
            if changes.any() {
                return Ok(changes);
            }
            tokio::select! {
                ready = ear.folders.ready() => ready.map_err(failed)?,
                ended = ear.deaths.heard() => {
                    ended.map_err(failed)?;
                    ear.heard().changes.members = true;
                }
            }
        }
    }
}

impl Ear {
    fn new(paths: &Paths) -> io::Result<Self> {
        let folders = Folders::new()?;
        folders.add(&paths.folder)?;
        let heard = Mutex::new(Heard { changes: Changes::ALL, members: None });
        Ok(Self { folders, deaths: Deaths::new()?, heard })
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was heard since the last call.
    fn take(&self, paths: &Paths) -> io::Result<Changes> {
        let mut heard = self.heard();
        self.folders.drain(|event| {
            if event.mask.contains(AddWatchFlags::IN_IGNORED) && heard.members == Some(event.wd) {
                heard.members = None;
            } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.folders.add(&paths.folder)?;
            }
            heard.note(&event, paths);
            Ok(())
        })?;
        // Whoever announces first makes the folder, which is no event that is listened to.
        if heard.members.is_none()
            && let Ok(descriptor) = self.folders.add(&paths.members)
        {
            heard.members = Some(descriptor);
            heard.changes.members = true;
        }
        Ok(std::mem::take(&mut heard.changes))
    }
}

impl Heard {
    fn note(&mut self, event: &InotifyEvent, paths: &Paths) {
        if self.members == Some(event.wd) {
            self.changes.members = true;
            return;
        }
        let Some(name) = &event.name else {
            // About the folder itself, or too much has happened to be listed.
            self.changes = Changes::ALL;
            return;
        };
        let is = |path: &Path| path.file_name() == Some(name);
        self.changes.lock |= is(&paths.record) || is(&paths.lock);
        self.changes.members |= is(&paths.members);
        self.changes.answer |= is(&paths.answer);
        // A request is put up as a second name of a temporary file: only the end of the first one is heard.
        let request = paths.request.file_name().unwrap_or_default();
        self.changes.request |= name.as_bytes().starts_with(request.as_bytes());
    }
}

impl Files {
    // === members ===

    /// Also clears away those who are gone.
    fn announce(&self, announcement: Announcement) -> Result<(), LockError> {
        let folder = &self.paths.members;
        let why = |error: io::Error| failed("announce this member in", folder, &error);
        if !announcement.is_sound() {
            return Err(why(io::Error::other("an announcement with a name, nonce or text that nobody would read")));
        }
        make_folder(folder).map_err(why)?;
        let own = file_name(&announcement.nonce);
        let posted = Posted { announcement, writer: self.own().cloned() };
        put(&folder.join(&own), &folder.join(format!("{own}.new")), &posted).map_err(why)?;
        for (path, _) in self.posted()?.into_iter().filter(|(_, posted)| !self.is_fresh(posted)) {
            // Somebody else may be quicker.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    fn withdraw(&self, nonce: &str) -> Result<(), LockError> {
        if Nonce::parse(nonce).is_none() {
            // Nothing was ever announced under it, and it becomes part of a path.
            return Ok(());
        }
        let path = self.paths.members.join(file_name(nonce));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("withdraw", &path, &error)),
            _ => Ok(()),
        }
    }

    fn look(&self) -> Result<(Look, Vec<ProcessId>), LockError> {
        let stored = store::read_record(&self.paths).map_err(|error| unreadable(&self.paths, error))?;
        let mut fresh = self.posted()?;
        fresh.retain(|(_, posted)| self.is_fresh(posted));
        let is_here = |writer: &Writer| self.own().is_some_and(|own| writer.is_visible_to(own));
        let writers = fresh.iter().filter_map(|(_, posted)| posted.writer.as_ref());
        let processes = writers.filter(|writer| is_here(writer)).map(|writer| writer.process).collect();
        let mut members: Vec<_> = fresh.into_iter().map(|(_, posted)| posted.announcement).collect();
        board::sort(&mut members);
        let history = stored.as_ref().map(|stored| stored.document.history.clone()).unwrap_or_default();
        let written_unix_us = written_unix_us(&self.paths.record);
        Ok((Look { seen: seen_by_anybody(&self.paths, stored), history, members, written_unix_us }, processes))
    }

    /// All announcements that can be read. What else lies there is named once in the log.
    fn posted(&self) -> Result<Vec<(PathBuf, Posted)>, LockError> {
        let folder = &self.paths.members;
        let entries = match list(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("look for members in", folder, &error)),
        };
        let mut odd = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        let mut posted = Vec::new();
        for name in entries {
            let path = folder.join(&name);
            match read::<Posted>(&path) {
                Ok(Some(found)) if name == *file_name(&found.announcement.nonce) && found.announcement.is_sound() => {
                    posted.push((path, found));
                }
                // Withdrawn meanwhile.
                Ok(None) => {}
                result => {
                    let why = result.err().map_or_else(|| "it is none of ours".to_owned(), |error| error.to_string());
                    if odd.len() < MEMBERS_MAX && odd.insert(name) {
                        tracing::debug!("{path:?} is skipped: {why}");
                    }
                }
            }
        }
        Ok(posted)
    }

    fn is_fresh(&self, posted: &Posted) -> bool {
        let is_young = posted.announcement.is_fresh();
        let visible = posted.writer.as_ref().filter(|writer| self.own().is_some_and(|own| writer.is_visible_to(own)));
        is_young && visible.is_none_or(|writer| writer.process.is_alive())
    }

    fn own(&self) -> Option<&Writer> {
        self.own.get_or_init(Writer::own).as_ref()
    }

    // === requests ===

    /// The request that is up, however old; one that cannot be read is none.
    fn request(&self) -> Result<Option<Asked>, LockError> {
        Self::read_note(&self.paths.request, "read the request")
    }

    fn read_note<T: DeserializeOwned>(path: &Path, action: &str) -> Result<Option<T>, LockError> {
        match read::<T>(path) {
            Ok(note) => Ok(note),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::debug!("{path:?} is ignored: {error}");
                Ok(None)
            }
            Err(error) => Err(failed(action, path, &error)),
        }
    }

    /// The last answer; one that cannot be read is none.
    fn last_answer(&self) -> Result<Option<Answer>, LockError> {
        Self::read_note(&self.paths.answer, "read the answer")
    }

    fn ask(&self, asked: &Asked) -> Result<Asking, LockError> {
        let path = &self.paths.request;
        let why = |error: io::Error| failed("put up a request in", path, &error);
        let temporary = self.beside_request("new");
        write_new(&temporary, asked).map_err(why)?;
        let asking = (|| {
            for _ in 0..ASK_TRIES {
                match fs::hard_link(&temporary, path) {
                    Ok(()) => return Ok(Asking::Up),
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(why(error)),
                    Err(_) => {}
                }
                // Whoever answers takes the request down a moment later, and may have no time left for it.
                let answered = self.last_answer()?.map(|answer| answer.id);
                let waits = |up: &Asked| up.is_waiting() && answered.as_ref() != Some(&up.id);
                if let Some(first) = self.request()?.filter(waits) {
                    return Ok(Asking::Busy(first));
                }
                self.take_down(|up| !up.is_some_and(waits))?;
            }
            Err(why(io::Error::other("others ask at the same time")))
        })();
        // The end of this name is what watchers hear.
        fs::remove_file(&temporary).map_err(why)?;
        asking
    }

    /// The answer first: who asks must not see the request gone without it.
    fn answer(&self, answer: &Answer) -> Result<(), LockError> {
        let path = &self.paths.answer;
        let why = |error: io::Error| failed("answer in", path, &error);
        let temporary = self.beside_request("answer.new");
        put(path, &temporary, answer).map_err(why)?;
        self.take_down(|up| up.is_some_and(|up| up.id == answer.id))
    }

    /// Removes the request if it is one of `those`. It is moved away before, so that another one which has just been
    /// put up in its place is not removed with it.
    fn take_down(&self, those: impl Fn(Option<&Asked>) -> bool) -> Result<(), LockError> {
        let path = &self.paths.request;
        let why = |error: io::Error| failed("take down the request", path, &error);
        let Some(inode) = Inode::of_path(path).map_err(why)? else { return Ok(()) };
        if !those(self.request()?.as_ref()) {
            return Ok(());
        }
        let away = self.beside_request("old");
        match fs::rename(path, &away) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            moved => moved.map_err(why)?,
        }
        if Inode::of_path(&away).map_err(why)? != Some(inode) {
            // Unless a third one is up meanwhile: then its turn has passed, and who asked hears nothing.
            let _ = fs::hard_link(&away, path);
        }
        fs::remove_file(&away).map_err(why)
    }

    /// A name that nobody else uses.
    fn beside_request(&self, suffix: &str) -> PathBuf {
        let mut name = self.paths.request.clone().into_os_string();
        name.push(format!(".{:016x}.{suffix}", KernelEntropy.bits()));
        name.into()
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> LockError {
    let why = format!("failed to {action} {path:?}: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => LockError::Denied(why),
        _ => LockError::Unavailable(why),
    }
}

fn file_name(nonce: &str) -> String {
    format!("{nonce}{SUFFIX}")
}

fn written_unix_us(record: &Path) -> Option<u64> {
    let modified = record.metadata().ok()?.modified().ok()?;
    u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}

/// Made by the first who announces itself. As readable as the record.
fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o775).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => require_folder(folder),
        made => made,
    }
}

fn require_folder(folder: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(folder)?.file_type();
    if kind.is_dir() { Ok(()) } else { Err(io::Error::other("it is no folder")) }
}

/// The names in the folder that an announcement could have.
fn list(folder: &Path) -> io::Result<Vec<OsString>> {
    require_folder(folder)?;
    let names = fs::read_dir(folder)?.take(NAMES_MAX).filter_map(|entry| Some(entry.ok()?.file_name()));
    let is_ours = |name: &OsString| {
        name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).is_some_and(|stem| Nonce::parse(stem).is_some())
    };
    Ok(names.filter(is_ours).take(MEMBERS_MAX).collect())
}

/// Reads a small file of ours; nothing if there is none. InvalidData: somebody else wrote it.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(file) = open_to_read(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(invalid(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| invalid(error.to_string()))
}

/// Replaces a file whole. Not durably, see above.
fn put(path: &Path, temporary: &Path, content: &impl Serialize) -> io::Result<()> {
    write_new(temporary, content)?;
    fs::rename(temporary, path).inspect_err(|_| drop(fs::remove_file(temporary)))
}

fn write_new(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(content)?;
    bytes.push(b'\n');
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it would have more than {FILE_BYTES_MAX} bytes")));
    }
    let open = || {
        let flags = OFlags::NOFOLLOW.bits() as i32;
        OpenOptions::new().write(true).create_new(true).mode(0o664).custom_flags(flags).open(path)
    };
    let file = match open() {
        // A writer that crashed may have left one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(path).and_then(|()| open()),
        opened => opened,
    };
    file?.write_all(&bytes).inspect_err(|_| drop(fs::remove_file(path)))
}

#[cfg(test)]
mod tests;

//! The file: opening it, its pragmas, its form, and what SQLite's errors mean.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use tidegate_core::Digest;

use crate::Error;

/// In the file's header, so that `file` and we know what it is: "Tide".
const APPLICATION_ID: u32 = 0x5469_6465;

/// Every form so far, oldest first. Never changed once released: the checksums are in the files.
const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("migrations/0001_journal.sql"))];

/// The newest form that this version reads and writes.
pub(crate) const FORM: u32 = 1;

/// How long to wait for another writer's or checkpoint's lock.
const BUSY: Duration = Duration::from_secs(5);

/// Pages in the WAL before a commit copies them into the database (4 MiB).
const CHECKPOINT_PAGES: u32 = 1000;

/// Turns an error of SQLite into ours: what was done, on which file.
pub(crate) fn failed<'a>(
    path: &'a Path,
    doing: &'a str,
) -> impl Fn(rusqlite::Error) -> Error + Copy + 'a {
    move |error| {
        let code = error.sqlite_error().copied();
        if let Some(failure) = code {
            let full = failure.code == ErrorCode::DiskFull
                || failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE;
            if full {
                return Error::Full(folder_of(path).display().to_string());
            }
        }
        let damaged = match code {
            Some(failure) => {
                matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            }
            None => is_unreadable_value(&error),
        };
        if damaged {
            return corrupt(path.display().to_string(), format!("{doing}: {error}"));
        }
        storage(path, doing, error)
    }
}

/// Whether a stored value has another type or size than was ever written.
pub(crate) fn is_unreadable_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        error,
        E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..)
            | E::QueryReturnedNoRows
    )
}

/// [`Error::Storage`] about this file.
pub(crate) fn storage(
    path: &Path,
    doing: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Storage { context: format!("{doing} ({})", path.display()), source: source.into() }
}

/// [`Error::Corrupt`].
pub(crate) fn corrupt(place: impl Into<String>, why: impl Into<String>) -> Error {
    Error::Corrupt { place: place.into(), why: why.into() }
}

/// The folder that the file lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// `journal.db` -> `journal.db-wal`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes an entry of a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Opens for writing; makes the file, private to its owner, where there is none. Brings an older
/// form up to date.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, Error> {
    let doing = "opening the journal";
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => sync_folder(folder_of(path)).map_err(|e| storage(path, doing, e))?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            return Err(Error::Full(folder_of(path).display().to_string()));
        }
        Err(error) => return Err(storage(path, doing, error)),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = failed(path, doing);
    let mut connection = Connection::open_with_flags(path, flags).map_err(sql)?;
    common_pragmas(&connection).map_err(sql)?;
    let form = form_of(&connection, path)?;
    writer_pragmas(&connection).map_err(sql)?;
    migrate(&mut connection, path, form)?;
    Ok(connection)
}

fn common_pragmas(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(
        "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON;",
    )
}

fn writer_pragmas(connection: &Connection) -> rusqlite::Result<()> {
    // Only has an effect before the first table; lets retention give space back.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_IOERR),
            Some(format!("write-ahead logging is not possible here (got \"{mode}\")")),
        ));
    }
    // FULL: a commit returns after its flush. Not configurable: decisions stand on it.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 8388608;")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

/// The form of the file, 0 for a new one.
fn form_of(connection: &Connection, path: &Path) -> Result<u32, Error> {
    let sql = failed(path, "reading the journal's header");
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = number("application_id").map_err(sql)?;
    let form = number("user_version").map_err(sql)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(sql)?;
    if application == 0 && form == 0 && tables == 0 {
        return Ok(0);
    }
    let place = path.display().to_string();
    if application != i64::from(APPLICATION_ID) {
        return Err(corrupt(place, "this is not a journal of Tidegate (its mark is missing)"));
    }
    let found = u32::try_from(form).ok().filter(|form| *form > 0 && tables > 0);
    let found = found.ok_or_else(|| corrupt(place, format!("there is no form {form}")))?;
    if found > FORM {
        return Err(Error::Newer { found, known: FORM });
    }
    Ok(found)
}

/// Applies what is missing, each migration in a transaction of its own, and checks that what was
/// applied before is what we know under that number.
fn migrate(connection: &mut Connection, path: &Path, form: u32) -> Result<(), Error> {
    let sql = failed(path, "bringing the journal's form up to date");
    for (number, script) in MIGRATIONS {
        let checksum = Digest::of(script.as_bytes());
        if *number <= form {
            let known: String = connection
                .query_row("SELECT sha256 FROM migrations WHERE number = ?1", [number], |row| {
                    row.get(0)
                })
                .map_err(sql)?;
            if known != checksum.as_str() {
                let why = format!("form {number} was made by another script ({known})");
                return Err(corrupt(path.display().to_string(), why));
            }
            continue;
        }
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(sql)?;
        transaction
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, sha256 TEXT NOT NULL);",
            )
            .and_then(|()| transaction.execute_batch(script))
            .and_then(|()| {
                transaction.execute(
                    "INSERT INTO migrations (number, sha256) VALUES (?1, ?2)",
                    (number, checksum.as_str()),
                )
            })
            .and_then(|_| transaction.pragma_update(None, "application_id", APPLICATION_ID))
            .and_then(|()| transaction.pragma_update(None, "user_version", number))
            .and_then(|()| transaction.commit())
            .map_err(sql)?;
    }
    Ok(())
}

/// Copies the WAL into the database, durably, and empties it as far as no reader needs it.
pub(crate) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Opens for reading only, also beside a writer. Where SQLite cannot make its shared-memory file
/// (the folder cannot be written), the file is read as it lies, provided that no WAL could hold
/// more.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let doing = "opening the journal for reading";
    let connection = match try_reader(path) {
        Ok(connection) => connection,
        Err(error) if needs_shared_memory(&error) && path.exists() => {
            let wal = beside(path, "-wal");
            if std::fs::metadata(&wal).is_ok_and(|found| found.len() > 0) {
                let why = format!(
                    "the folder cannot be written, and {} holds commits that are not in the \
                     database yet; read it as its owner, or copy both files",
                    wal.display()
                );
                return Err(storage(path, doing, why));
            }
            immutable(path).map_err(failed(path, doing))?
        }
        Err(error) => return Err(failed(path, doing)(error)),
    };
    if form_of(&connection, path)? == 0 {
        return Err(storage(path, doing, "there is no journal in this file yet"));
    }
    Ok(connection)
}

fn try_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    probe(Connection::open_with_flags(path, flags)?)
}

fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    probe(Connection::open_with_flags(uri, flags)?)
}

/// Really touches the file: SQLite opens lazily.
fn probe(connection: Connection) -> rusqlite::Result<Connection> {
    common_pragmas(&connection)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    Ok(connection)
}

fn needs_shared_memory(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some_and(|code| {
        code == ErrorCode::CannotOpen
            || code == ErrorCode::ReadOnly
            || code == ErrorCode::PermissionDenied
    })
}

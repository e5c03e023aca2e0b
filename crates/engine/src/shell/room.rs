//! Room on the home's disk. What is reserved for the way back is given up before anybody fails for
//! want of it: also host and switch, which keep their floors and tables there, have to write
//! something before an undo is done.

use std::path::Path;

use tidegate_journal::sqlite::reserve::RESERVE_FILE;
use tidegate_wire::home::Home;

/// With fewer bytes than this the reserve is given up; a lane's table and floor, a heartbeat and
/// some commits fit into it.
const LOW: u64 = 512 << 10;

/// Gives the reserve up where the disk of this home is full. Whether it did.
pub(super) fn look(home: &Home) -> bool {
    let Ok(disk) = rustix::fs::statvfs(home.root()) else { return false };
    give_up(home.root(), disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn give_up(folder: &Path, left: u64) -> bool {
    if left >= LOW {
        return false;
    }
    match std::fs::remove_file(folder.join(RESERVE_FILE)) {
        Ok(()) => {
            tracing::warn!(
                home = %folder.display(),
                left_kb = left / 1024,
                "no space left on this disk: what was reserved for the way back is in use now; \
                 no release is taken until there is room"
            );
            true
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::error!(%error, "cannot give up the space that is reserved for the way back");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LOW, RESERVE_FILE, give_up};

    #[test]
    fn the_reserve_is_given_up_once_and_only_on_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = folder.path().join(RESERVE_FILE);
        std::fs::write(&reserve, "space").unwrap();
        assert!(!give_up(folder.path(), LOW));
        assert!(reserve.exists());
        assert!(give_up(folder.path(), LOW - 1));
        assert!(!reserve.exists());
        assert!(!give_up(folder.path(), 0));
    }
}

//! The destination: a directory that will be somebody's `/nix`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::error::BootstrapError as Error;
use crate::model::StorePath;
use crate::nix::NixError;
use crate::nix::beneath::Beneath;
use crate::nix::db::Database;
use crate::nix::error::io_error;
use crate::nix::nar;

pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) state_dir: PathBuf,
    database: Database,
}

impl Place {
    /// Changes nothing. `from`: what it must not be.
    pub(super) fn open(to: &Path, from: &Path) -> Result<Self, Error> {
        let refused = |reason: String| Error::To { to: to.to_owned(), reason };
        let meta = fs::symlink_metadata(to)
            .map_err(|err| refused(format!("can't look at it: {err}: mount the store there")))?;
        if meta.is_symlink() {
            return Err(refused("it is a symlink: name the directory itself".to_owned()));
        }
        if !meta.is_dir() {
            return Err(refused("it is not a directory: mount the store there".to_owned()));
        }
        let same = |from: fs::Metadata| (from.dev(), from.ino()) == (meta.dev(), meta.ino());
        if fs::metadata(from).is_ok_and(same) {
            let from = from.display();
            return Err(refused(format!("it is --from {from}: mount the store beside it")));
        }
        // What lies in a link's place would be written to.
        for part in ["store", "var", "var/nix", "var/nix/db", "var/nix/gcroots"] {
            if fs::symlink_metadata(to.join(part)).is_ok_and(|meta| meta.is_symlink()) {
                return Err(refused(format!("{part} in it is a symlink: Nix takes none there")));
            }
        }
        let state_dir = to.join("var/nix");
        let database = Database::new(&state_dir);
        Ok(Self { dir: to.to_owned(), state_dir, database })
    }

    /// What Nix would make, but for a link: where Nix sees this directory now is not where it will be.
    pub(super) fn make(&self) -> Result<(), NixError> {
        let roots = self.state_dir.join("gcroots");
        fs::create_dir_all(&roots).map_err(|err| io_error("create", &roots, err))?;
        let profiles = roots.join("profiles");
        match symlink("/nix/var/nix/profiles", &profiles) {
            Err(err) if err.kind() != ErrorKind::AlreadyExists => {
                Err(io_error("create", &profiles, err))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_valid(&self, path: &StorePath) -> Result<bool, NixError> {
        let file = self.database.file();
        // A store that was never used.
        if !file.try_exists().map_err(|err| io_error("look for", file, err))? {
            return Ok(false);
        }
        self.database.is_valid(path)
    }

    /// An error, if something of a valid path's closure is not there. What it is is not looked at.
    pub(super) fn is_whole(&self, environment: &StorePath) -> Result<(), Error> {
        for info in self.database.closure(environment)?.paths {
            if fs::symlink_metadata(self.in_store(&info.path)).is_err() {
                return Err(self.damaged(info.path, "is not there"));
            }
        }
        Ok(())
    }

    /// An error, if a valid path is another than its NAR was.
    pub(super) fn is_as_registered(&self, path: &StorePath) -> Result<(), Error> {
        let tree = Beneath::open(&self.dir).map_err(|err| io_error("open", &self.dir, err))?;
        for one in self.database.vouched(std::slice::from_ref(path))? {
            let file = Path::new("store").join(path.base_name());
            let hash = nar::hash(&tree, &file, one.nar_size);
            if hash.map_err(|err| io_error("read", &file, err))? != Some(one.sha256) {
                return Err(self.damaged(path.clone(), "is not what it was then"));
            }
        }
        Ok(())
    }

    fn damaged(&self, path: StorePath, what: &'static str) -> Error {
        Error::Damaged { path, to: self.dir.clone(), what }
    }

    fn in_store(&self, path: &StorePath) -> PathBuf {
        self.dir.join("store").join(path.base_name())
    }

    /// Everything that was written to its file system is on the disk.
    pub(super) fn sync(&self) -> Result<(), NixError> {
        let sync = || rustix::fs::syncfs(fs::File::open(&self.dir)?).map_err(std::io::Error::from);
        sync().map_err(|err| io_error("sync", &self.dir, err))
    }
}

//! Which `wardlock` is started.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::bail;

/// How the program comes to be.
const BUILD: &str = "build it with `cargo build --release -p wardlock`";

/// The program: the one that is named, else the one beside this program, else the one on PATH.
pub(super) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    choose(named, beside.as_deref(), env::var_os("PATH").as_deref())
}

fn choose(named: Option<&Path>, beside: Option<&Path>, path: Option<&OsStr>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return match runnable(named) {
            // As given, it might be looked for on PATH.
            true => Ok(std::path::absolute(named)?),
            false => bail!("--wardlock {}: there is no such program; {BUILD}", named.display()),
        };
    }
    let on_path = path.map(|path| env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    let found = beside.map(Path::to_owned).into_iter().chain(on_path).map(|dir| dir.join("wardlock"));
    match found.into_iter().find(|program| program.is_absolute() && runnable(program)) {
        Some(program) => Ok(program),
        None => {
            let beside = beside.map(|dir| format!(" in {} or", dir.display())).unwrap_or_default();
            bail!("there is no `wardlock` program{beside} on PATH: {BUILD}, or name it with --wardlock PATH")
        }
    }
}

fn runnable(program: &Path) -> bool {
    std::fs::metadata(program).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(dir: &Path, mode: u32) -> PathBuf {
        let program = dir.join("wardlock");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        program
    }

    #[test]
    fn the_named_one_then_the_one_beside_then_the_one_on_path() {
        let (beside, path) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let on_path = program(path.path(), 0o755);
        let choose = |named: Option<&Path>| choose(named, Some(beside.path()), Some(path.path().as_os_str()));
        assert_eq!(choose(None).unwrap(), on_path);
        let next = program(beside.path(), 0o755);
        assert_eq!(choose(None).unwrap(), next);
        assert_eq!(choose(Some(&on_path)).unwrap(), on_path);
    }

    #[test]
    fn an_error_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = program(dir.path(), 0o644);
        for named in [None, Some(file.as_path()), Some(dir.path()), Some(Path::new("/nowhere/wardlock"))] {
            let error = choose(named, Some(dir.path()), None).unwrap_err().to_string();
            assert!(error.contains("cargo build --release -p wardlock"), "{error}");
            if let Some(named) = named {
                assert!(error.contains(&named.display().to_string()), "{error}");
            }
        }
    }
}

//! `wardlock config`: values by path, with their versions.

use std::{
    io::{Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::Value;
use wardlock_machine::{Answer, ConfigView, Configured, Key, Name, Query, Version, limits};
use wardlock_router::{Client, Config, http::documents};

use super::{
    args,
    connect::{PATIENCE, Server},
    failure::Failure,
    output::{self, Format, Table},
    remote,
    stale::{self, Freshness},
    view,
};

/// Read and change the configuration.
#[derive(Args, Debug)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    Get(Get),
    Set(Set),
    Edit(Edit),
    Rm(Rm),
    Ls(Ls),
    Log(Log),
    Diff(Diff),
    Rollback(Rollback),
}

/// Print a value.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints the value and nothing else; with -o json a document with its version.

Exit status: 0, or 1 where the path has no value.

Example:
  wardlock config get payments/limits.yaml > limits.yaml
  wardlock config get payments/limits.yaml --stale --max-age 5")]
struct Get {
    /// The path.
    #[arg(value_parser = args::name)]
    path: Name,

    /// As it was at this version: `config log` lists them.
    #[arg(long = "at", value_name = "VERSION", value_parser = version)]
    at: Option<Version>,

    #[command(flatten)]
    freshness: Freshness,
}

/// Give a path a value.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints the version that this made. With --expect nothing is changed unless the path is at that version; 0 means that
it must have no value.

Example:
  wardlock config set payments/limit 100 --expect 3
  wardlock config set payments/limits.yaml --file limits.yaml --type application/yaml")]
struct Set {
    /// The path.
    #[arg(value_parser = args::name)]
    path: Name,

    /// The value.
    #[arg(required_unless_present = "file", allow_hyphen_values = true)]
    value: Option<String>,

    /// Take the value from a file; `-` is stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,

    /// What the value is, a media type. Without it the path's last type is kept, or the value is text, or bytes.
    #[arg(short, long = "type", value_name = "TYPE")]
    content_type: Option<String>,

    #[command(flatten)]
    expect: Expect,
}

/// Change a value in an editor.
#[derive(Args, Debug)]
#[command(after_help = "\
Starts $VISUAL, or $EDITOR, or vi. Nothing is changed where the editor fails or leaves the value as it was, or where
somebody else has changed it meanwhile; what was written is then kept in a file.

Example:
  EDITOR=nano wardlock config edit payments/limits.yaml")]
struct Edit {
    /// The path.
    #[arg(value_parser = args::name)]
    path: Name,
}

/// Take a path's value away.
#[derive(Args, Debug)]
#[command(after_help = "\
Its versions stay for a while: `config rollback` brings one of them back.

Example:
  wardlock config rm payments/limit")]
struct Rm {
    /// The path.
    #[arg(value_parser = args::name)]
    path: Name,

    #[command(flatten)]
    expect: Expect,
}

/// List the paths.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock config ls payments/")]
struct Ls {
    /// Only paths that start so.
    #[arg(default_value = "")]
    prefix: String,

    #[command(flatten)]
    freshness: Freshness,
}

/// List the versions of a path that are kept, newest first.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock config log payments/limits.yaml")]
struct Log {
    /// The path.
    #[arg(value_parser = args::name)]
    path: Name,
}

/// Show what changed between two versions.
#[derive(Args, Debug)]
#[command(after_help = "\
Without versions, between the last two. Values that are no text are compared, and not shown.

Example:
  wardlock config diff payments/limits.yaml 3 5")]
struct Diff {
    /// The path.
    #[arg(value_parser = args::name)]
    path: Name,

    /// The older version. [default: the one before TO]
    #[arg(value_parser = version)]
    from: Option<Version>,

    /// The newer version. [default: the last]
    #[arg(value_parser = version)]
    to: Option<Version>,
}

/// Bring an earlier value back.
#[derive(Args, Debug)]
#[command(after_help = "\
The value becomes a new version; nothing of the history is lost. It works for a path that was deleted, too.

Example:
  wardlock config rollback payments/limits.yaml 3")]
struct Rollback {
    /// The path.
    #[arg(value_parser = args::name)]
    path: Name,

    /// Whose value.
    #[arg(value_name = "VERSION", value_parser = version)]
    to: Version,

    #[command(flatten)]
    expect: Expect,
}

#[derive(Args, Debug)]
struct Expect {
    /// Only if the path is at this version; 0 means that it has no value.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    expect: Option<Version>,
}

impl Expect {
    fn on<'a>(&self, config: Config<'a>) -> Config<'a> {
        match self.expect {
            Some(version) => config.expecting(version),
            None => config,
        }
    }
}

fn version(text: &str) -> Result<Version, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    text.parse().map(Version).map_err(|_| format!("{text:?} is not a version: `config log` lists them"))
}

/// Runs the command.
pub(super) async fn run(args: ConfigArgs) -> Result<ExitCode, Failure> {
    let (server, format) = (&args.server, args.server.output);
    match args.command {
        ConfigCommand::Get(get) => self::get(get, &server.connect().await?, format).await,
        ConfigCommand::Set(set) => self::set(set, server).await,
        ConfigCommand::Edit(edit) => self::edit(&edit, &server.connect().await?, format).await,
        ConfigCommand::Rm(rm) => {
            let client = server.connect().await?;
            let done = rm.expect.on(path(&client, &rm.path)).delete().await.map_err(Failure::error)?;
            say(&rm.path, &done, format, "deleted")
        }
        ConfigCommand::Ls(ls) => self::ls(&ls, &server.connect().await?, format).await,
        ConfigCommand::Log(log) => self::log(&log, &server.connect().await?, format).await,
        ConfigCommand::Diff(diff) => self::diff(&diff, &server.connect().await?, format).await,
        ConfigCommand::Rollback(back) => {
            let client = server.connect().await?;
            let config = back.expect.on(path(&client, &back.path));
            let done = config.rollback(back.to).await.map_err(Failure::error)?;
            say(&back.path, &done, format, &format!("as in version {}", back.to))
        }
    }
}

fn path<'a>(client: &'a Client, path: &'a Name) -> Config<'a> {
    client.config(path.as_str()).patience(PATIENCE)
}

fn say(path: &Name, done: &Configured, format: Format, what: &str) -> Result<ExitCode, Failure> {
    remote::say(format, &documents::configured(path, done), &format!("version {}: {what}", done.version))
}

async fn get(get: Get, client: &Client, format: Format) -> Result<ExitCode, Failure> {
    let query = Query::Config { key: Key::config(get.path.clone()), version: get.at };
    let Answer::Config(found) = get.freshness.read(client, query).await? else { return Err(stale::other()) };
    let found = existing(&get.path, get.at, found)?;
    match format {
        Format::Json => output::print_json(&documents::config(&found))?,
        Format::Table => output::print_bytes(found.value.as_deref().unwrap_or_default())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A version of a path that has a value, or the last one.
async fn kept(client: &Client, name: &Name, at: Option<Version>) -> Result<ConfigView, Failure> {
    let config = path(client, name);
    let found = match at {
        None => config.get().await,
        Some(version) => config.at(version).await,
    };
    existing(name, at, found.map_err(Failure::error)?)
}

fn existing(name: &Name, at: Option<Version>, found: Option<ConfigView>) -> Result<ConfigView, Failure> {
    let absent = match at {
        None => "it has no value".to_owned(),
        Some(version) => {
            format!("version {version} is not kept any more, was never made, or is a deletion: see `config log`")
        }
    };
    found
        .filter(|found| !found.deleted)
        .ok_or_else(|| Failure::error(format!("{}: {absent}", output::printable(name.as_str()))))
}

async fn set(set: Set, server: &Server) -> Result<ExitCode, Failure> {
    let value = match (set.value, &set.file) {
        (Some(value), _) => value.into_bytes(),
        (None, Some(file)) => read(file)?,
        (None, None) => return Err(Failure::usage("a value or --file is needed")),
    };
    let client = server.connect().await?;
    let content_type = match set.content_type {
        Some(given) => given,
        None => match path(&client, &set.path).get().await.map_err(Failure::error)? {
            Some(found) => found.content_type,
            None => guess(&value).to_owned(),
        },
    };
    let config = set.expect.on(path(&client, &set.path));
    let done = config.put(content_type, &value).await.map_err(Failure::error)?;
    say(&set.path, &done, server.output, &format!("{} bytes", value.len()))
}

fn guess(value: &[u8]) -> &'static str {
    if std::str::from_utf8(value).is_ok() { "text/plain; charset=utf-8" } else { "application/octet-stream" }
}

/// A file or stdin, but no more of it than a value may have, and a byte.
fn read(file: &PathBuf) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let most = limits::CONFIG_VALUE_BYTES as u64 + 1;
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().lock().take(most).read_to_end(&mut value),
        false => std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut value)),
    };
    match read {
        Ok(_) if value.len() as u64 == most => {
            Err(Failure::error(format!("a value may have at most {} bytes", limits::CONFIG_VALUE_BYTES)))
        }
        Ok(_) => Ok(value),
        Err(error) => Err(Failure::error(format!("cannot read {}: {error}", file.display()))),
    }
}

async fn edit(edit: &Edit, client: &Client, format: Format) -> Result<ExitCode, Failure> {
    let found = path(client, &edit.path).get().await.map_err(Failure::error)?;
    let (before, content_type, at) = match found {
        Some(found) => (found.value.as_deref().unwrap_or_default().to_vec(), found.content_type, found.version),
        None => (Vec::new(), guess(b"").to_owned(), Version(0)),
    };
    let suffix: String = edit.path.as_str().rsplit_once('.').map_or("", |(_, suffix)| suffix).to_owned();
    let suffix = if suffix.bytes().all(|b| b.is_ascii_alphanumeric()) { format!(".{suffix}") } else { String::new() };
    let file = tempfile::Builder::new().prefix("wardlock-").suffix(&suffix).tempfile();
    let mut file = file.map_err(|error| Failure::error(format!("cannot make a file to edit: {error}")))?;
    let written = file.write_all(&before).and_then(|()| file.flush());
    written.map_err(|error| Failure::error(format!("cannot write a file to edit: {error}")))?;
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok().filter(|e| !e.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    // An editor may be a command with options; the shell parts them as git does.
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file.path())
        .status()
        .map_err(|error| Failure::error(format!("cannot start {editor}: {error}")))?;
    if !status.success() {
        return Err(Failure::error(format!("{editor} ended with {status}; nothing is changed")));
    }
    // By its name: many editors write a new file in place of the old one.
    let after = read(&file.path().to_path_buf())?;
    if after == before {
        return remote::say(format, &serde_json::json!({ "success": true, "changed": false }), "unchanged");
    }
    match path(client, &edit.path).expecting(at).put(content_type, &after).await {
        Ok(done) => say(&edit.path, &done, format, &format!("{} bytes", after.len())),
        Err(error) => {
            let kept = file.into_temp_path().keep();
            let kept = kept.map_or_else(|_| String::new(), |kept| format!("; what you wrote is in {}", kept.display()));
            Err(Failure::error(format!("{error}{kept}")))
        }
    }
}

async fn ls(ls: &Ls, client: &Client, format: Format) -> Result<ExitCode, Failure> {
    let (mut all, mut after): (Vec<ConfigView>, _) = (Vec::new(), None::<Name>);
    loop {
        let after_this = after.as_ref().map(|after: &Name| after.as_str().to_owned());
        let query = Query::Configs { prefix: ls.prefix.clone(), after: after_this, limit: limits::PAGE as u32 };
        let Answer::Configs(found) = ls.freshness.read(client, query).await? else { return Err(stale::other()) };
        let is_last = found.len() < limits::PAGE;
        after = found.last().map(|last| last.path.clone());
        all.extend(found);
        if is_last {
            break;
        }
    }
    match format {
        Format::Json => {
            output::print_json(&Value::Array(all.iter().map(documents::config_version).collect()))?;
        }
        Format::Table => {
            let mut table = Table::new(["PATH", "VERSION", "UPDATED", "SIZE", "TYPE"]);
            for found in all {
                let ConfigView { path, version, updated, size, content_type, .. } = found;
                table.row([path.to_string(), version.to_string(), view::time(updated), size.to_string(), content_type]);
            }
            output::print(&table.lines())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn versions(client: &Client, name: &Name) -> Result<Vec<ConfigView>, Failure> {
    let versions = path(client, name).versions().await.map_err(Failure::error)?;
    match versions.is_empty() {
        true => Err(Failure::error(format!("{}: nothing is known of it", output::printable(name.as_str())))),
        false => Ok(versions),
    }
}

async fn log(log: &Log, client: &Client, format: Format) -> Result<ExitCode, Failure> {
    let versions = versions(client, &log.path).await?;
    match format {
        Format::Json => {
            output::print_json(&Value::Array(versions.iter().map(documents::config_version).collect()))?;
        }
        Format::Table => {
            let mut table = Table::new(["VERSION", "UPDATED", "SIZE", "TYPE"]);
            for found in versions {
                let size = if found.deleted { "deleted".to_owned() } else { found.size.to_string() };
                table.row([found.version.to_string(), view::time(found.updated), size, found.content_type]);
            }
            output::print(&table.lines())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn diff(diff: &Diff, client: &Client, format: Format) -> Result<ExitCode, Failure> {
    let versions = versions(client, &diff.path).await?;
    let last = versions.first().map_or(Version(0), |last| last.version);
    let to = diff.to.unwrap_or(last);
    let before = || versions.iter().map(|found| found.version).find(|version| *version < to);
    let Some(from) = diff.from.or_else(before) else {
        return Err(Failure::error(format!("no version before {to} is kept")));
    };
    let (old, new) = (side(client, &diff.path, &versions, from).await?, side(client, &diff.path, &versions, to).await?);
    let text = unified(&old, &new, &format!("{} version {from}", diff.path), &format!("{} version {to}", diff.path));
    match format {
        Format::Json => {
            let document = serde_json::json!({ "path": diff.path.as_str(), "from": from.0, "to": to.0, "diff": text });
            output::print_json(&document)?;
        }
        Format::Table => output::print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A version's value; a deletion has none.
async fn side(client: &Client, path: &Name, versions: &[ConfigView], at: Version) -> Result<Vec<u8>, Failure> {
    if versions.iter().any(|found| found.version == at && found.deleted) {
        return Ok(Vec::new());
    }
    Ok(kept(client, path, Some(at)).await?.value.as_deref().unwrap_or_default().to_vec())
}

fn unified(old: &[u8], new: &[u8], from: &str, to: &str) -> String {
    if old == new {
        return String::new();
    }
    let (Ok(before), Ok(after)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return format!("{from} and {to} differ, {} and {} bytes\n", old.len(), new.len());
    };
    let (from, to) = (output::printable(from), output::printable(to));
    similar::TextDiff::from_lines(before, after).unified_diff().header(&from, &to).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("7"), Ok(Version(7)));
        assert_eq!(version("v7"), Ok(Version(7)));
        for wrong in ["", "-1", "1.5", "latest", "99999999999999999999"] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_diff_shows_texts_and_only_compares_bytes() {
        assert_eq!(unified(b"a\nb\n", b"a\nc\n", "x", "y"), "--- x\n+++ y\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
        assert_eq!(unified(b"same", b"same", "x", "y"), "");
        assert_eq!(unified(b"\xff", b"\xfe\xfe", "x", "y"), "x and y differ, 1 and 2 bytes\n");
    }
}

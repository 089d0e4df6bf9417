//! Memory of the machine, or the part that this process may use, by its own limit (`ulimit -v`)
//! or that of its group (a container).

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the bytes that this process could use at most if it were alone.
pub fn total() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limits(&groups, Path::new("/sys/fs/cgroup"), |path| {
        fs::read_to_string(path).ok()?.trim().parse().ok()
    });
    machine().min(limit).min(addresses())
}

/// Returns the bytes of addresses that this process may use, which limit its memory.
fn addresses() -> u64 {
    // SAFETY: all-zero is a valid rlimit.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable struct.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
    // 32 bits wide with some C libraries. Their highest number means no limit.
    #[allow(clippy::unnecessary_cast)]
    if done && limit.rlim_cur != libc::RLIM_INFINITY { limit.rlim_cur as u64 } else { u64::MAX }
}

/// Returns the bytes of the machine's memory; after a failure the amount of a very small
/// machine.
fn machine() -> u64 {
    // SAFETY: all-zero is a valid sysinfo.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable struct.
    if unsafe { libc::sysinfo(&mut info) } != 0 {
        return 32 << 20;
    }
    // Both are 32 bits wide on some machines and 64 bits on others.
    #[allow(clippy::unnecessary_cast)]
    (info.totalram as u64).saturating_mul(info.mem_unit as u64)
}

/// Returns the lowest limit of a process's groups and their parents. `groups` is the content of
/// `/proc/self/cgroup`: lines of `number:controllers:path`.
fn limits(groups: &str, root: &Path, read: impl Fn(&Path) -> Option<u64>) -> u64 {
    let mut least = u64::MAX;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, file) = match controllers {
            "" => (PathBuf::from(root), "memory.max"),
            c if c.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = base.join(path.trim_start_matches('/'));
        // In a container the path may be one of the host. Then only the base exists.
        for dir in group.ancestors().take_while(|dir| dir.starts_with(&base)) {
            least = least.min(read(&dir.join(file)).unwrap_or(u64::MAX));
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let read = |path: &Path| match path.to_str()? {
            "/c/a/memory.max" => Some(64 << 20),
            "/c/a/b/memory.max" => Some(128 << 20),
            "/c/memory/x/memory.limit_in_bytes" => Some(32 << 20),
            _ => None,
        };
        let root = Path::new("/c");
        assert_eq!(limits("0::/a/b\n", root, read), 64 << 20);
        assert_eq!(limits("3:cpu:/x\n2:memory,hugetlb:/x/y\n0::/\n", root, read), 32 << 20);
        assert_eq!(limits("0::/\n", root, read), u64::MAX);
        assert_eq!(limits("", root, read), u64::MAX);
    }

    #[test]
    fn this_machine_has_some() {
        assert!((4 << 20..1 << 50).contains(&total()), "{}", total());
    }
}

//! Groups of processes with a limit (cgroups), if this machine permits them: version 1, with a
//! tree for each controller, or version 2 (kernel: Documentation/admin-guide/cgroup-v2.rst).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{skipped, wait_for};

const ROOT: &str = "/sys/fs/cgroup";

/// A group. It is removed with its handle, when its processes have ended.
pub struct Group(PathBuf);

impl Group {
    /// Returns a group with this memory in KiB and no swap. `None`, and a line with the reason,
    /// if that is not possible.
    pub fn of_memory(kib: u64) -> Option<Self> {
        let bytes = (kib * 1024).to_string();
        let old = [("memory.limit_in_bytes", &*bytes), ("memory.memsw.limit_in_bytes", &bytes)];
        let new = [("memory.max", &*bytes), ("memory.swap.max", "0")];
        Group::make("memory", old, new)
    }

    /// Returns a group with any number of threads until [`Group::limit_threads`].
    pub fn of_threads() -> Option<Self> {
        Group::make("pids", [("pids.max", "max"); 2], [("pids.max", "max"); 2])
    }

    /// Creates a group. The second limit of each version is omitted if this kernel does not
    /// have it.
    fn make(controller: &str, old: [(&str, &str); 2], new: [(&str, &str); 2]) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("culvert-test-{}-{n}", std::process::id());
        let own_tree = Path::new(ROOT).join(controller);
        let made = if own_tree.join("cgroup.procs").exists() {
            Group::below(&own_tree, &name, old)
        } else {
            // A group has the files of the controllers that its parent enables. This group has
            // no children, so it may have processes.
            let handed = format!("{ROOT}/cgroup.subtree_control");
            match fs::read_to_string(&handed) {
                Ok(list) if list.split_whitespace().any(|c| c == controller) => {
                    Group::below(Path::new(ROOT), &name, new)
                }
                Ok(list) => Err(format!("{handed} has {:?}, not {controller}", list.trim())),
                Err(e) => Err(format!("{handed}: {e}")),
            }
        };
        made.map_err(|why| skipped(&format!("no group of processes with a limit: {why}"))).ok()
    }

    fn below(tree: &Path, name: &str, limits: [(&str, &str); 2]) -> Result<Self, String> {
        let dir = tree.join(name);
        fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let group = Group(dir);
        for (n, (file, value)) in limits.into_iter().enumerate() {
            let path = group.0.join(file);
            if n > 0 && !path.exists() {
                continue;
            }
            fs::write(&path, value).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(group)
    }

    /// Returns the file into which a process writes its number to join the group.
    pub fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Moves a process into the group. Its existing memory stays with the former group.
    pub fn add(&self, pid: u32) {
        fs::write(self.procs(), pid.to_string()).expect("a process for the group");
    }

    /// Limits the number of threads. Existing ones stay.
    pub fn limit_threads(&self, most: Option<u64>) {
        let most = most.map_or("max".to_owned(), |n| n.to_string());
        fs::write(self.0.join("pids.max"), most).expect("a limit of threads");
    }

    /// Returns how many threads were refused.
    pub fn threads_refused(&self) -> u64 {
        let text = fs::read_to_string(self.0.join("pids.events")).expect("pids.events");
        let line = text.lines().find_map(|l| l.strip_prefix("max ")).expect("max");
        line.trim().parse().expect("a number")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group of dead processes is empty a moment later.
        wait_for("the group to be empty", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

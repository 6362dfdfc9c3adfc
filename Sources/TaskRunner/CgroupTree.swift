import CProcess
import EventLoop
import Glibc

/// The cgroups of one worker: a leaf for the worker itself, and beside it one for each attempt, from whose first
/// instruction on everything that it starts is in there, whatever it does to its session, parents and environment.
///
/// Of cgroup v2 alone (cgroups(7), and the kernel's admin-guide/cgroup-v2). All of it blocks shortly in the kernel.
package final class CgroupTree: Sendable {
    /// The directory that was left to this worker.
    package let path: String
    /// The controllers that hold attempts: of ``Controller``, those that this place has.
    package let controllers: Set<Controller>
    private let root: Directory

    /// What limits can be set for an attempt as a whole.
    package enum Controller: String, Sendable, CaseIterable {
        case memory
        case pids
    }

    private static let ownLeaf = "worker"
    private static let attemptPrefix = "job-"

    /// Moves this process into a leaf of the tree, and ends everything that earlier lives have left in it: returns when
    /// that is proven to be gone. Blocks.
    /// - Parameter limit: how long the killed may take.
    ///
    /// Throws `unkillable` when a process lives at the deadline, and `system` when the place is no cgroup that this
    /// process may use.
    package init(at place: CgroupPlace, within limit: Duration) throws(TaskRunnerError) {
        path = place.path
        do throws(Errno) {
            root = try Directory(creating: place.path)
            let leaf = place.leaf ?? Self.ownLeaf
            try root.make(leaf).writeInPlace("0", to: "cgroup.procs")
            try Self.end(in: root, but: leaf, until: .now.advanced(by: limit))
            controllers = try Self.enableControllers(in: root)
        } catch  where error.code == ETIMEDOUT {
            throw TaskRunnerError(
                .unkillable,
                "processes of an earlier life of this worker cannot be killed; they are in cgroups below \(place.path), "
                    + "hang in a driver or a file system, and may need a reboot"
            )
        } catch {
            throw TaskRunnerError(
                .system,
                "\(place.path) cannot be used as the cgroup of this worker's jobs",
                cause: error
            )
        }
    }

    /// Makes the cgroup of an attempt. What of `limits` no controller holds is left out.
    ///
    /// Throws `resources`.
    func make(attemptID: String, limits: ResourceLimits) throws(TaskRunnerError) -> AttemptCgroup {
        let name = Self.attemptPrefix + attemptID
        do throws(Errno) {
            let cgroup = AttemptCgroup(try root.make(name), name: name, in: self)
            do throws(Errno) {
                for (file, value) in settings(limits) { try cgroup.directory.writeInPlace(value, to: file) }
            } catch {
                cgroup.remove()
                throw error
            }
            return cgroup
        } catch {
            throw TaskRunnerError(.resources, "cannot make the cgroup \(path)/\(name) of a task", cause: error)
        }
    }

    /// The files of a cgroup, and what is written to them for these limits.
    func settings(_ limits: ResourceLimits) -> [(file: String, value: String)] {
        var settings: [(file: String, value: String)] = []
        if let bytes = limits.memoryBytes, controllers.contains(.memory) {
            settings.append(("memory.max", "\(bytes)"))
            // A job that has lost one of its processes is no job any more.
            settings.append(("memory.oom.group", "1"))
        }
        if let count = limits.processes, controllers.contains(.pids) { settings.append(("pids.max", "\(count)")) }
        return settings
    }

    /// Removes an attempt's cgroup; false while something is in it.
    func remove(_ name: String) -> Bool { Self.remove(name, from: root, depth: 0) }

    // MARK: earlier lives

    /// Kills what is in the tree but this process. Throws `ETIMEDOUT` at the deadline.
    private static func end(
        in root: borrowing Directory,
        but leaf: String,
        until deadline: ContinuousClock.Instant
    ) throws(Errno) {
        while true {
            // In this order: what an earlier life was about to start goes from its leaf into an attempt's cgroup.
            var isClean = try endNeighbours(in: root.open(leaf))
            for name in try cgroups(in: root) where name != leaf {
                if try !wasEmpty(name, in: root, until: deadline) { isClean = false }
            }
            if isClean { return }
            guard deadline > .now else { throw Errno(ETIMEDOUT) }
        }
    }

    /// Kills what is in the cgroup of an attempt, and removes it; whether there was nothing to do.
    private static func wasEmpty(
        _ name: String,
        in root: borrowing Directory,
        until deadline: ContinuousClock.Instant
    ) throws(Errno) -> Bool {
        do throws(Errno) {
            let cgroup = try root.open(name)
            let isPopulated = try AttemptCgroup.isPopulated(cgroup)
            if isPopulated {
                try cgroup.writeInPlace("1", to: "cgroup.kill")
                guard try AttemptCgroup.waitUntilEmpty(cgroup, deadline) else { throw Errno(ETIMEDOUT) }
            }
            _ = remove(name, from: root, depth: 0)
            return !isPopulated
        } catch  where error.code == ENODEV || error == .noSuchFile {
            // Somebody else has removed it meanwhile.
            return false
        }
    }

    /// Kills the other processes of this one's leaf; whether there were none.
    private static func endNeighbours(in leaf: borrowing Directory) throws(Errno) -> Bool {
        var wasAlone = true
        for pid in try AttemptCgroup.processes(of: leaf) where pid != getpid() {
            guard let entry = ProcessEntry(pid: pid), !entry.isDead, let dying = DyingProcess(killing: entry) else {
                continue
            }
            wasAlone = false
            _ = dying.waitForDeath(until: .now.advanced(by: .seconds(1)))
        }
        return wasAlone
    }

    private static func enableControllers(in root: borrowing Directory) throws(Errno) -> Set<Controller> {
        let offered = String(decoding: try root.read("cgroup.controllers", limit: 4096) ?? [], as: UTF8.self)
        let names = Set(offered.split { $0 == " " || $0 == "\n" }.map(String.init))
        let usable = Controller.allCases.filter { names.contains($0.rawValue) }
        guard !usable.isEmpty else { return [] }
        do throws(Errno) {
            try root.writeInPlace(usable.map { "+\($0.rawValue)" }.joined(separator: " "), to: "cgroup.subtree_control")
            return Set(usable)
        } catch  where error.code == EBUSY || error == .noSuchFile {
            // Somebody else is in the very directory, or it has no say about its controllers.
            return []
        }
    }

    /// The names of the cgroups in a directory; those of systemd's own (`.control`) are left out.
    private static func cgroups(in directory: borrowing Directory) throws(Errno) -> [String] {
        var found: [String] = []
        for name in try directory.names() where !name.hasPrefix(".") {
            let status = try directory.status(of: name)
            if status.st_mode & S_IFMT == S_IFDIR { found.append(name) }
        }
        return found
    }

    /// A job may have made cgroups in its own: they go first.
    private static func remove(_ name: String, from directory: borrowing Directory, depth: Int) -> Bool {
        if directory.removeEmptyDirectory(name) { return true }
        guard depth < 32 else { return false }
        do throws(Errno) {
            let cgroup = try directory.open(name)
            for child in try cgroups(in: cgroup) { _ = remove(child, from: cgroup, depth: depth + 1) }
        } catch {
            return false  // it lives still, or is gone
        }
        return directory.removeEmptyDirectory(name)
    }
}

/// What an attempt may use at most, all its processes together; nil: what there is.
package struct ResourceLimits: Sendable, Equatable {
    package var memoryBytes: UInt64?
    package var processes: Int?

    package init(memoryBytes: UInt64? = nil, processes: Int? = nil) {
        self.memoryBytes = memoryBytes
        self.processes = processes
    }
}

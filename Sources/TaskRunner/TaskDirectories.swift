import Glibc
import Synchronization

/// The directories that the jobs of one card run in: `<cache>/tasks/<task_id>`.
///
/// All of it blocks on the file system; call it from a thread that may.
package final class TaskDirectories: Sendable {
    /// The card's cache, `<MERGE_ROOT>/gpu<N>`.
    package let cachePath: String
    private let limits: PruneLimits
    private let owner: JobUser?
    private let state = Mutex(State())

    private static let folder = "tasks"

    private struct State {
        var ledger = PruneLedger()
        /// How many attempts use a directory now.
        var users: [String: Int] = [:]
    }

    /// Makes the card's cache where it is missing, and learns what earlier lives have left in it.
    /// - Parameter owner: whom jobs run as, where that is another user: their directories are that user's, and the cache
    ///   is open to that user's group.
    ///
    /// Throws `file` when the cache cannot be made or read.
    package init(cachePath: String, limits: PruneLimits, owner: JobUser? = nil) throws(TaskRunnerError) {
        self.cachePath = cachePath
        self.limits = limits
        self.owner = owner
        do throws(Errno) {
            if let owner { try Directory(creating: cachePath).share(with: owner.group) }
            let tasks = try Self.openTasks(of: cachePath)
            for name in try tasks.names() {
                let finished = Double(try tasks.status(of: name).st_mtim.tv_sec)
                let entry = PruneLedger.Entry(name: name, finished: finished, bytes: tasks.size(of: name))
                state.withLock { $0.ledger.add(entry) }
            }
        } catch {
            throw TaskRunnerError(.file, "cannot use the card's cache \(cachePath)", cause: error)
        }
    }

    /// Opens the directory of a job, making it if it is not there, and keeps it from being pruned until
    /// ``release(task:at:)``.
    /// - Parameter task: one path component.
    ///
    /// Throws `file`, and `invalidTask` for a name that is not one component.
    package func open(task: String) throws(TaskRunnerError) -> WorkingDirectory {
        guard !task.isEmpty, task != ".", task != "..", !task.utf8.contains(where: { $0 == 0 || $0 == 0x2F }) else {
            throw TaskRunnerError(.invalidTask, "\"\(task)\" cannot name a directory")
        }
        // Before it is made: from here on nobody removes it.
        state.withLock { state in
            state.users[task, default: 0] += 1
            state.ledger.remove(task)
        }
        do throws(Errno) {
            let tasks = try Self.openTasks(of: cachePath)
            if let owner { try tasks.admit(owner.group) }
            let directory = try tasks.make(task)
            if let owner { try directory.give(to: owner) }
            return try WorkingDirectory(directory.intoDescriptor())
        } catch {
            state.withLock { _ = Self.leave(task, &$0) }
            let path = "\(cachePath)/\(Self.folder)/\(task)"
            throw TaskRunnerError(.file, "cannot make the job's directory \(path)", cause: error)
        }
    }

    /// - Returns: whether nobody uses the directory any more.
    private static func leave(_ task: String, _ state: inout State) -> Bool {
        let users = (state.users[task] ?? 0) - 1
        state.users[task] = users > 0 ? users : nil
        return users <= 0
    }

    /// The directory that a job asks to run in.
    /// - Parameters:
    ///   - path: relative to the card's cache, or absolute.
    ///   - allowed: directories outside the cache that jobs may use.
    ///
    /// Throws `workingDirectory` when it cannot be entered, `outsideCache` when it lies elsewhere.
    package func resolve(_ path: String, allowed: [String] = []) throws(TaskRunnerError) -> WorkingDirectory {
        let cache = try WorkingDirectory(anywhere: cachePath)
        let full = path.hasPrefix("/") ? path : "\(cachePath)/\(path)"
        do {
            return try WorkingDirectory(full, inside: cache)
        } catch  where error.code == .outsideCache {
            for root in allowed {
                let place = try WorkingDirectory(anywhere: full)
                if place.isInside(try WorkingDirectory(anywhere: root)) { return place }
            }
            throw error
        }
    }

    /// An attempt has ended: its job's directory is removed if it is empty, and may be pruned from now on if not.
    package func release(task: String, at now: Double) {
        var bytes: UInt64 = 0
        do throws(Errno) {
            let tasks = try Self.openTasks(of: cachePath)
            // Under the lock, so that no attempt that begins now finds it vanishing.
            let isDone = state.withLock { state in !Self.leave(task, &state) || tasks.removeEmptyDirectory(task) }
            guard !isDone, tasks.exists(task) else { return }
            bytes = tasks.size(of: task)
        } catch {
            // Cannot be looked into now; the pruning will tell if it cannot be removed either.
            state.withLock { _ = Self.leave(task, &$0) }
        }
        state.withLock { state in
            guard state.users[task] == nil else { return }
            state.ledger.add(PruneLedger.Entry(name: task, finished: now, bytes: bytes))
        }
    }

    /// Removes finished directories beyond the limits, oldest first.
    /// - Returns: what could not be removed; it is tried again by the next life of the worker.
    package func prune(at now: Double) -> [TaskRunnerError] {
        let excess = state.withLock { $0.ledger.takeExcess(over: limits, now: now) }
        guard !excess.isEmpty else { return [] }
        var problems: [TaskRunnerError] = []
        for entry in excess {
            do throws(Errno) {
                // A job that begins now would find its directory vanishing.
                guard state.withLock({ $0.users[entry.name] == nil }) else { continue }
                try Self.openTasks(of: cachePath).remove(entry.name)
            } catch {
                let path = "\(cachePath)/\(Self.folder)/\(entry.name)"
                problems.append(TaskRunnerError(.file, "cannot remove the finished directory \(path)", cause: error))
            }
        }
        return problems
    }

    /// Opened anew each time: a job may have removed or replaced any part of it.
    private static func openTasks(of cachePath: String) throws(Errno) -> Directory {
        try Directory(creating: cachePath).openOrMake(folder)
    }
}

import CProcess
import EventLoop
import Glibc
import Synchronization

/// The directories that the jobs of one card run in: `<cache>/tasks/<task_id>`.
///
/// A directory that a job leaves empty becomes that of a later job, by another name: a file system makes and removes
/// directories slowly, and some the slower the more were removed just before (ext4 without a journal).
///
/// All of it blocks on the file system; call it from a thread that may.
package final class TaskDirectories: Sendable {
    /// The card's cache, `<MERGE_ROOT>/gpu<N>`.
    package let cachePath: String
    private let limits: PruneLimits
    private let owner: JobUser?
    private let state = Mutex(State())

    private static let folder = "tasks"
    /// Most empty directories that are kept for later jobs.
    private static let idleLimit = 8

    private struct State {
        var ledger = PruneLedger()
        var uses: [String: Use] = [:]
        /// The names of directories that ended jobs have left as they were made.
        var idle: [String] = []
        /// Whether directories can be given another name here.
        var canRename = true
        var folder: TasksFolder?
    }

    /// A directory that attempts use now.
    private struct Use {
        var attempts = 0
        /// The directory as it was made, by this life.
        var made: JobDirectory?
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
            for name in try tasks.names() where !tasks.removeEmptyDirectory(name) {
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
        let idle = state.withLock { state -> String? in
            state.uses[task, default: Use()].attempts += 1
            state.ledger.remove(task)
            let index = state.idle.firstIndex(of: task) ?? state.idle.indices.last
            return index.map { state.idle.remove(at: $0) }
        }
        do throws(Errno) {
            let folder = try folder()
            if let owner { try folder.directory.admit(owner.group) }
            let isNew = try place(task, in: folder.directory, idle: idle)
            let directory = try folder.directory.openOrMake(task)
            if let owner { try directory.give(to: owner) }
            let made = try JobDirectory(directory, path: "\(folder.path)/\(task)")
            state.withLock { state in if isNew { state.uses[task]?.made = made } }
            return made.directory
        } catch {
            state.withLock { _ = Self.leave(task, &$0) }
            let path = "\(cachePath)/\(Self.folder)/\(task)"
            throw TaskRunnerError(.file, "cannot make the job's directory \(path)", cause: error)
        }
    }

    /// Sees that there is something under the name of a job.
    /// - Parameter idle: the name of a directory that may become the job's.
    /// - Returns: whether it is as new.
    private func place(_ task: String, in tasks: borrowing Directory, idle: String?) throws(Errno) -> Bool {
        guard let idle, idle != task else { return idle != nil ? true : try tasks.makeNew(task) }
        do throws(Errno) {
            if try tasks.renameIfFree(idle, to: task) { return true }
            state.withLock { $0.idle.append(idle) }
            return false
        } catch {
            // Somebody has removed it, or this file system cannot do it.
            if error != .noSuchFile { state.withLock { $0.canRename = false } }
            _ = tasks.removeEmptyDirectory(idle)
            return try tasks.makeNew(task)
        }
    }

    /// - Returns: the directory, when nobody uses it any more.
    private static func leave(_ task: String, _ state: inout State) -> Use? {
        state.uses[task]?.attempts -= 1
        guard let use = state.uses[task], use.attempts <= 0 else { return nil }
        state.uses[task] = nil
        return use
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

    /// An attempt has ended: its job's directory goes to a later job or is removed if it is empty, and may be pruned from
    /// now on if not.
    /// - Parameter isLeft: whether nothing of the attempt is alive.
    package func release(task: String, isLeft: Bool = true, at now: Double) {
        var bytes: UInt64 = 0
        do throws(Errno) {
            let tasks = try folder()
            // Under the lock, so that no attempt that begins now finds it vanishing.
            let isDone = state.withLock { state in
                guard let use = Self.leave(task, &state) else { return true }
                let mayStay = isLeft && state.canRename && state.idle.count < Self.idleLimit
                if mayStay, use.made?.isAsMade(task, in: tasks.directory) ?? false {
                    state.idle.append(task)
                    return true
                }
                return tasks.directory.removeEmptyDirectory(task)
            }
            guard !isDone, tasks.directory.exists(task) else { return }
            bytes = tasks.directory.size(of: task)
        } catch {
            // Cannot be looked into now; the pruning will tell if it cannot be removed either.
            state.withLock { _ = Self.leave(task, &$0) }
        }
        state.withLock { state in
            guard state.uses[task] == nil else { return }
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
                guard state.withLock({ $0.uses[entry.name] == nil }) else { continue }
                try Self.openTasks(of: cachePath).remove(entry.name)
            } catch {
                let path = "\(cachePath)/\(Self.folder)/\(entry.name)"
                problems.append(TaskRunnerError(.file, "cannot remove the finished directory \(path)", cause: error))
            }
        }
        return problems
    }

    /// The folder of all directories, looked up each time: a job may have removed or replaced any part of it.
    private func folder() throws(Errno) -> TasksFolder {
        if let known = state.withLock({ $0.folder }), known.isStill(at: "\(cachePath)/\(Self.folder)") { return known }
        let folder = try TasksFolder(Self.openTasks(of: cachePath))
        state.withLock { $0.folder = folder }
        return folder
    }

    private static func openTasks(of cachePath: String) throws(Errno) -> Directory {
        try Directory(creating: cachePath).openOrMake(folder)
    }
}

/// The folder of all jobs' directories, held open.
private final class TasksFolder: Sendable {
    let directory: Directory
    /// Every symbolic link resolved.
    let path: String
    private let identity: FileIdentity

    init(_ directory: consuming Directory) throws(Errno) {
        path = try directory.descriptor.realPath()
        identity = FileIdentity(try directory.descriptor.status())
        self.directory = directory
    }

    func isStill(at path: String) -> Bool {
        var status = stat()
        return unsafe lstat(path, &status) == 0 && FileIdentity(status) == identity
    }
}

/// Which file something is, on this machine.
private struct FileIdentity: Equatable {
    let device: dev_t
    let inode: ino_t

    init(_ status: stat) {
        device = status.st_dev
        inode = status.st_ino
    }
}

/// The directory of a job that it got, and how it was then.
private struct JobDirectory: Sendable {
    let directory: WorkingDirectory
    private let before: Looks

    private struct Looks: Equatable {
        let identity: FileIdentity
        let mode: mode_t
        let user: uid_t
        let group: gid_t

        init(_ status: stat) {
            identity = FileIdentity(status)
            mode = status.st_mode
            user = status.st_uid
            group = status.st_gid
        }
    }

    init(_ directory: consuming Directory, path: String) throws(Errno) {
        before = Looks(try directory.descriptor.status())
        self.directory = WorkingDirectory(directory.intoDescriptor(), path: path)
    }

    /// Whether another job could not tell it from a new one. By its name, which may lead elsewhere by now (to something
    /// that was mounted on it).
    func isAsMade(_ name: String, in tasks: borrowing Directory) -> Bool {
        do throws(Errno) {
            return Looks(try tasks.status(of: name)) == before && cprocess_is_empty(directory.descriptor.number) == 1
        } catch {
            return false  // it cannot be looked at: so it is not used again
        }
    }
}

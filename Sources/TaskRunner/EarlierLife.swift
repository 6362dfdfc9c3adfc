import CProcess
import EventLoop
import Glibc

/// Ends what an earlier life of this worker has left running.
package enum EarlierLife {
    /// Kills every process of earlier lives and returns when all of them are gone. Blocks.
    ///
    /// They are known by the worker's marker in their environment, and by the journal (a process that the journal
    /// names is told from a later one with the same pid by its start time and the boot); with them goes everything
    /// in their sessions and everything that descends from them.
    /// - Parameters:
    ///   - workerMarker: what ``TaskRunner`` is made with.
    ///   - journaled: the processes of the attempts that the journal has open.
    /// - Returns: what was killed.
    ///
    /// Throws `unkillable` when one of them lives at the deadline, `system` when the processes cannot be listed.
    package static func end(
        workerMarker: String,
        journaled: [ProcessIdentity],
        within limit: Duration
    ) throws(TaskRunnerError) -> [ProcessEntry] {
        let deadline = ContinuousClock.now.advanced(by: limit)
        var killed: [ProcessEntry] = []
        while true {
            let found: [ProcessEntry]
            do throws(Errno) {
                found = try remains(workerMarker: workerMarker, journaled: journaled)
            } catch {
                throw TaskRunnerError(.system, "cannot look for processes of an earlier life", cause: error)
            }
            if found.isEmpty { return killed }
            killed += found.filter { process in !killed.contains { $0.pid == process.pid } }
            let left = ContinuousClock.now.duration(to: deadline)
            guard left > .zero else { throw unkillable(found) }
            let dying = found.compactMap { DyingProcess(killing: $0) }
            for process in dying where !process.waitForDeath(until: deadline) { throw unkillable(found) }
        }
    }

    private static func unkillable(_ processes: [ProcessEntry]) -> TaskRunnerError {
        let names = processes.prefix(5).map(\.description).joined(separator: ", ")
        return TaskRunnerError(
            .unkillable,
            "processes of an earlier life of this worker cannot be killed: \(names); "
                + "a process in state D hangs in a driver or a file system, and may need a reboot"
        )
    }

    /// The living processes of earlier lives.
    private static func remains(
        workerMarker: String,
        journaled: [ProcessIdentity]
    ) throws(Errno) -> [ProcessEntry] {
        let all = try ProcessTable.all()
        let byPid = Dictionary(uniqueKeysWithValues: all.map { ($0.pid, $0) })
        let mine = lineage(byPid)
        let leaders = Set(
            journaled.filter { $0.bootID == ProcessTable.bootID && byPid[$0.pid]?.started == $0.started }.map(\.pid)
        )
        let roots = all.filter { process in
            // Kernel threads have no parent but 2, and no environment to look at.
            guard process.pid > 2, process.parent != 2, !mine.contains(process.pid) else { return false }
            return leaders.contains(process.pid) || leaders.contains(process.session)
                || ProcessTable.variable(TaskRunner.workerVariable, of: process.pid) == workerMarker
        }
        return try ProcessTable.trees(of: roots).filter { !$0.isDead && !mine.contains($0.pid) }
    }

    /// This process and those above it: never killed, whatever their environment says.
    private static func lineage(_ byPid: [Int32: ProcessEntry]) -> Set<Int32> {
        var lineage: Set<Int32> = []
        var pid = getpid()
        while pid > 0, lineage.insert(pid).inserted { pid = byPid[pid]?.parent ?? 0 }
        return lineage
    }
}

extension DyingProcess {
    /// Blocks until the process is dead. False when it lives at the deadline.
    func waitForDeath(until deadline: ContinuousClock.Instant) -> Bool {
        while true {
            let (seconds, attoseconds) = ContinuousClock.now.duration(to: deadline).components
            let milliseconds = seconds * 1000 + attoseconds / 1_000_000_000_000_000
            var watched = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
            let count = unsafe poll(&watched, 1, Int32(clamping: max(0, milliseconds)))
            if count > 0 { return true }
            if count == 0 || errno != EINTR { return false }
        }
    }
}

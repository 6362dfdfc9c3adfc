import EventLoop
import Glibc
import Synchronization
import WireJSON

/// What a worker writes down about its attempts, so that its next life can close them, and the place of their outputs.
///
/// `<root>/attempts-<n>.jsonl` is appended to (``JournalSegment``): a line when an attempt begins, when its process is
/// there, when it has ended, and when nothing more is to be done for it. An attempt costs no file of its own; only one that
/// writes something has a directory, `<root>/<attempt_id>/` with `stdout` and `stderr`.
///
/// All of it blocks on the file system; call it from a thread that may.
package final class AttemptJournal: Sendable {
    /// `<LOG_ROOT>/gpu<N>`.
    package let root: String
    private let limits: PruneLimits
    private let segmentLimit: Int
    private let directory: Directory
    private let state = Mutex(State())

    private struct State {
        var ledger = PruneLedger()
        var segments: [Int: JournalSegment] = [:]
        /// The segment of each attempt that is not closed.
        var open: [String: Int] = [:]
        /// The segment that takes new attempts.
        var current = 0
    }

    /// An attempt of an earlier life whose reporting was not completed.
    package struct Entry: Sendable, Equatable {
        package let attemptID: String
        /// What was to be run; nil when it cannot be read.
        package internal(set) var attempt: JSON?
        /// The process, if it was started.
        package internal(set) var process: ProcessIdentity?
        /// The report, if the attempt had ended.
        package internal(set) var report: JSON?
        /// What could not be read, for a person.
        package internal(set) var damage: [String] = []
    }

    /// - Parameter segmentLimit: bytes from which on a segment takes no new attempts.
    ///
    /// Throws `file` when the directory cannot be made.
    package init(root: String, limits: PruneLimits, segmentLimit: Int = 256 << 10) throws(TaskRunnerError) {
        self.root = root
        self.limits = limits
        self.segmentLimit = segmentLimit
        do throws(Errno) {
            directory = try Directory(creating: root)
        } catch {
            throw TaskRunnerError(.file, "cannot use the log directory \(root)", cause: error)
        }
    }

    /// Writes down what is about to be run, before anything of it happens.
    /// - Parameter document: one JSON value on one line.
    /// - Returns: where the outputs of the attempt go.
    ///
    /// Throws `file`.
    package func begin(attemptID: String, document: [UInt8]) throws(TaskRunnerError) -> TaskSpec.LogFiles {
        try change(attemptID) { state throws(Errno) in
            let number: Int = if let known = state.open[attemptID] { known } else { try usable(&state) }
            try state.segments[number]?.append(.attempt(document), of: attemptID)
            guard state.open.updateValue(number, forKey: attemptID) == nil else { return }
            state.segments[number]?.openAttempts += 1
        }
        return TaskSpec.LogFiles(directory: "\(root)/\(attemptID)")
    }

    /// Writes down which process runs the attempt. Throws `file`.
    package func started(_ process: ProcessIdentity, attemptID: String) throws(TaskRunnerError) {
        try append(.process(process), of: attemptID)
    }

    /// Writes the report of an ended attempt; it outlives this process, and after ``synchronize(attemptID:)`` a power
    /// cut too.
    /// - Parameter document: one JSON value on one line.
    ///
    /// Throws `file`.
    package func report(_ document: [UInt8], attemptID: String) throws(TaskRunnerError) {
        try append(.report(document), of: attemptID)
    }

    /// Brings a report that was written onto the disk; once this returns it survives a power cut. Throws `file`.
    package func synchronize(attemptID: String) throws(TaskRunnerError) {
        // Not under the lock: a disk may take its time.
        guard let file = state.withLock({ state in state.open[attemptID].flatMap { state.segments[$0]?.file } }) else {
            return
        }
        do throws(Errno) {
            try file.synchronize()
            try directory.descriptor.synchronize()
        } catch {
            throw TaskRunnerError(.file, "cannot sync \(root)/\(file.name)", cause: error)
        }
    }

    /// The attempt needs nothing more; from now on its outputs may be pruned. Throws `file`.
    package func close(attemptID: String, at now: Double) throws(TaskRunnerError) {
        try change(attemptID) { state throws(Errno) in
            guard let number = state.open.removeValue(forKey: attemptID) else { throw .noSuchFile }
            state.segments[number]?.openAttempts -= 1
            if directory.exists(attemptID) {
                let bytes = directory.size(of: attemptID)
                state.ledger.add(PruneLedger.Entry(name: attemptID, finished: now, bytes: bytes))
            }
            // Also when the segment goes: should that fail, the line tells the next life.
            try state.segments[number]?.append(.closed, of: attemptID)
            try retire(number, &state)
        }
    }

    /// Removes the outputs of closed attempts beyond the limits, oldest first.
    /// - Returns: what could not be removed; it is tried again by the next life of the worker.
    package func prune(at now: Double) -> [TaskRunnerError] {
        var problems: [TaskRunnerError] = []
        for entry in state.withLock({ $0.ledger.takeExcess(over: limits, now: now) }) {
            do throws(Errno) {
                let files = TaskStream.allCases.map(\.rawValue)
                if try !directory.remove(entry.name, holding: files) { try directory.remove(entry.name) }
            } catch  where error == .noSuchFile {
                continue
            } catch {
                problems.append(
                    TaskRunnerError(.file, "cannot remove the finished attempt \(root)/\(entry.name)", cause: error)
                )
            }
        }
        return problems
    }

    // MARK: writing

    private func append(_ line: JournalSegment.Line, of attemptID: String) throws(TaskRunnerError) {
        try change(attemptID) { state throws(Errno) in
            guard let number = state.open[attemptID] else { throw .noSuchFile }
            try state.segments[number]?.append(line, of: attemptID)
        }
    }

    private func change(
        _ attemptID: String,
        _ body: (inout State) throws(Errno) -> Void
    ) throws(TaskRunnerError) {
        do throws(Errno) {
            try state.withLock { state throws(Errno) in try body(&state) }
        } catch {
            throw TaskRunnerError(.file, "cannot write down attempt \(attemptID) in \(root)", cause: error)
        }
    }

    /// The segment for a new attempt: the current one, or a new one when that is full.
    private func usable(_ state: inout State) throws(Errno) -> Int {
        if let segment = state.segments[state.current] {
            if segment.bytes < segmentLimit { return state.current }
            state.current += 1
        }
        state.segments[state.current] = try JournalSegment(number: state.current, in: directory)
        return state.current
    }

    /// Throws a segment away that says nothing of open attempts, the current one only when that is worth while.
    private func retire(_ number: Int, _ state: inout State) throws(Errno) {
        guard let segment = state.segments[number], segment.openAttempts == 0 else { return }
        if number != state.current {
            state.segments[number] = nil
            try directory.removeFile(segment.file.name)
        } else if segment.bytes > segmentLimit / 4 {
            try state.segments[number]?.truncate()
        }
    }

    // MARK: earlier lives

    /// Reads what earlier lives have left: the attempts whose reporting was not completed, in the order of their names. The
    /// outputs of the others are noted for pruning. To be called before the first ``begin(attemptID:document:)``.
    /// - Returns: also what cannot be read and names no attempt, for a person.
    ///
    /// Throws `file` only when the directory or a segment as a whole cannot be read.
    package func recover() throws(TaskRunnerError) -> (entries: [Entry], damage: [String]) {
        do throws(Errno) {
            return try state.withLock { state throws(Errno) in
                let names = try directory.names()
                var numbers = names.compactMap(JournalSegment.number).sorted()
                let free = (numbers.last ?? -1) + 1
                try AttemptFiles.move(from: directory, names) { () throws(Errno) in
                    numbers.append(free)
                    return try JournalSegment(number: free, in: directory)
                }
                state.current = (numbers.last ?? -1) + 1
                var reader = JournalReader()
                for number in numbers { try recover(number, &reader, &state) }
                for name in names where state.open[name] == nil && JournalSegment.number(of: name) == nil {
                    try noteOutputs(name, &state)
                }
                return (reader.entries, reader.damage)
            }
        } catch {
            throw TaskRunnerError(.file, "cannot read the log directory \(root)", cause: error)
        }
    }

    private func recover(_ number: Int, _ reader: inout JournalReader, _ state: inout State) throws(Errno) {
        var segment = try JournalSegment(number: number, in: directory)
        let attempts = reader.read(try segment.content(in: directory), name: segment.file.name)
        for attempt in attempts { state.open[attempt] = number }
        segment.openAttempts = attempts.count
        if attempts.isEmpty { return try directory.removeFile(segment.file.name) }
        state.segments[number] = segment
    }

    private func noteOutputs(_ name: String, _ state: inout State) throws(Errno) {
        let status = try directory.status(of: name)
        guard status.st_mode & S_IFMT == S_IFDIR, !name.hasPrefix(".") else { return }
        let finished = Double(status.st_mtim.tv_sec)
        state.ledger.add(PruneLedger.Entry(name: name, finished: finished, bytes: directory.size(of: name)))
    }
}

import Glibc
import Synchronization
import WireJSON

/// What a worker writes down about its attempts, so that its next life can close them:
/// `<root>/<attempt_id>/` with `attempt.json`, `process.json`, `report.json`, `stdout` and `stderr`.
///
/// All of it blocks on the file system; call it from a thread that may.
package final class AttemptJournal: Sendable {
    /// `<LOG_ROOT>/gpu<N>`.
    package let root: String
    private let limits: PruneLimits
    private let ledger = Mutex(PruneLedger())
    /// The directories of the attempts that were begun and not closed.
    private let begun = Mutex<[String: Begun]>([:])

    /// The directory of an attempt, open from its begin to its close, with the bytes that were written into it.
    private final class Begun: Sendable {
        let directory: Directory
        let bytes = Mutex<UInt64>(0)

        init(_ directory: consuming Directory) { self.directory = directory }
    }

    private enum File {
        static let attempt = "attempt.json"
        static let process = "process.json"
        static let report = "report.json"
        /// A report that has reached everybody it is for.
        static let reported = "reported.json"
        static let outputs = ["stdout", "stderr"]
        static let all = [attempt, process, report, reported] + outputs
    }

    /// Longest document that is read back, in bytes: a report with two escaped outputs and a record fits.
    private static let documentLimit = 4 << 20

    /// An attempt of an earlier life whose reporting was not completed.
    package struct Entry: Sendable, Equatable {
        package let attemptID: String
        /// What was to be run; nil when it cannot be read.
        package let attempt: JSON?
        /// The process, if it was started.
        package let process: ProcessIdentity?
        /// The report, if the attempt had ended.
        package let report: JSON?
        /// What could not be read, for a person.
        package let damage: [String]
    }

    /// Throws `file` when the directory cannot be made.
    package init(root: String, limits: PruneLimits) throws(TaskRunnerError) {
        self.root = root
        self.limits = limits
        do throws(Errno) {
            _ = try Directory(creating: root)
        } catch {
            throw TaskRunnerError(.file, "cannot use the log directory \(root)", cause: error)
        }
    }

    /// Writes down what is about to be run, before anything of it happens.
    /// - Parameter document: one JSON value.
    /// - Returns: where the outputs of the attempt go.
    ///
    /// Throws `file`.
    package func begin(attemptID: String, document: [UInt8]) throws(TaskRunnerError) -> TaskSpec.LogFiles {
        do throws(Errno) {
            let attempt = Begun(try Directory(path: root).make(attemptID))
            begun.withLock { $0[attemptID] = attempt }
        } catch {
            throw TaskRunnerError(.file, "cannot make \(root)/\(attemptID)", cause: error)
        }
        try write(document, to: File.attempt, of: attemptID)
        return logFiles(of: attemptID)
    }

    /// Where the outputs of an attempt are.
    package func logFiles(of attemptID: String) -> TaskSpec.LogFiles {
        TaskSpec.LogFiles(stdout: "\(root)/\(attemptID)/stdout", stderr: "\(root)/\(attemptID)/stderr")
    }

    /// Writes down which process runs the attempt. Throws `file`.
    package func started(_ process: ProcessIdentity, attemptID: String) throws(TaskRunnerError) {
        var writer = JSONWriter(capacity: 128)
        writer.beginObject()
        writer.field("pid", process.pid)
        writer.field("started", process.started)
        writer.field("boot_id", process.bootID)
        writer.endObject()
        try write(writer.bytes, to: File.process, of: attemptID)
    }

    /// Writes the report of an ended attempt; it outlives this process, and after ``synchronize(attemptID:)`` a power
    /// cut too.
    /// - Parameter document: one JSON value.
    ///
    /// Throws `file`.
    package func report(_ document: [UInt8], attemptID: String) throws(TaskRunnerError) {
        try write(document, to: File.report, of: attemptID)
    }

    /// Brings a report that was written onto the disk; once this returns it survives a power cut. Throws `file`.
    package func synchronize(attemptID: String) throws(TaskRunnerError) {
        guard let attempt = begun.withLock({ $0[attemptID] }) else { return }
        do throws(Errno) {
            // The file systems that matter order their journals, so that this brings the attempt's own directory,
            // made before, with it.
            try attempt.directory.synchronize(File.report)
        } catch {
            throw TaskRunnerError(.file, "cannot sync \(root)/\(attemptID)/\(File.report)", cause: error)
        }
    }

    /// The attempt needs nothing more; from now on it may be pruned. Throws `file`.
    package func close(attemptID: String, at now: Double) throws(TaskRunnerError) {
        do throws(Errno) {
            let bytes: UInt64
            if let attempt = begun.withLock({ $0.removeValue(forKey: attemptID) }) {
                try Self.complete(attempt.directory)
                bytes = attempt.bytes.withLock { $0 } + Self.outputBytes(attempt.directory)
            } else {
                let root = try Directory(path: root)
                try Self.complete(try root.open(attemptID))
                bytes = root.size(of: attemptID)
            }
            ledger.withLock { $0.add(PruneLedger.Entry(name: attemptID, finished: now, bytes: bytes)) }
        } catch {
            throw TaskRunnerError(.file, "cannot close the attempt \(root)/\(attemptID)", cause: error)
        }
    }

    private static func complete(_ directory: borrowing Directory) throws(Errno) {
        do throws(Errno) {
            try directory.rename(File.report, to: File.reported)
        } catch {
            guard error == .noSuchFile else { throw error }
            // Closed without a report: nothing ran, or its end is nobody's business any more.
            try directory.create(Array("null".utf8), as: File.reported)
        }
    }

    private static func outputBytes(_ directory: borrowing Directory) -> UInt64 {
        var bytes: UInt64 = 0
        for name in File.outputs {
            do throws(Errno) {
                bytes += UInt64(max(0, try directory.status(of: name).st_blocks)) * 512
            } catch {
                continue  // there was no output
            }
        }
        return bytes
    }

    /// Removes closed attempts beyond the limits, oldest first.
    /// - Returns: what could not be removed; it is tried again by the next life of the worker.
    package func prune(at now: Double) -> [TaskRunnerError] {
        var problems: [TaskRunnerError] = []
        for entry in ledger.withLock({ $0.takeExcess(over: limits, now: now) }) {
            do throws(Errno) {
                let root = try Directory(path: root)
                if try !root.remove(entry.name, holding: File.all) { try root.remove(entry.name) }
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

    /// Reads what earlier lives have left: the attempts whose reporting was not completed. The others are noted for
    /// pruning.
    ///
    /// Throws `file` only when the directory itself cannot be read; a damaged attempt is told in its entry.
    package func recover() throws(TaskRunnerError) -> [Entry] {
        do throws(Errno) {
            let root = try Directory(path: root)
            var entries: [Entry] = []
            for name in try root.names().sorted() {
                let status = try root.status(of: name)
                guard status.st_mode & S_IFMT == S_IFDIR, !name.hasPrefix(".") else { continue }
                let directory = try root.open(name)
                if directory.exists(File.reported) {
                    let finished = Double(status.st_mtim.tv_sec)
                    let entry = PruneLedger.Entry(name: name, finished: finished, bytes: root.size(of: name))
                    ledger.withLock { $0.add(entry) }
                } else {
                    entries.append(Self.entry(name, in: directory))
                }
            }
            return entries
        } catch {
            throw TaskRunnerError(.file, "cannot read the log directory \(root)", cause: error)
        }
    }

    private static func entry(_ name: String, in directory: borrowing Directory) -> Entry {
        var damage: [String] = []
        let attempt = document(File.attempt, in: directory, &damage)
        if attempt == nil, damage.isEmpty { damage.append("\(File.attempt) is missing") }
        let process = document(File.process, in: directory, &damage)
        let report = document(File.report, in: directory, &damage)
        var identity: ProcessIdentity?
        if let process {
            identity = ProcessIdentity(process)
            if identity == nil { damage.append("\(File.process) names no process") }
        }
        return Entry(attemptID: name, attempt: attempt, process: identity, report: report, damage: damage)
    }

    /// Nil for a missing file and for a damaged one; the latter is told.
    private static func document(
        _ name: String,
        in directory: borrowing Directory,
        _ damage: inout [String]
    ) -> JSON? {
        do throws(Errno) {
            guard let bytes = try directory.read(name, limit: documentLimit) else {
                damage.append("\(name) is longer than \(documentLimit) bytes")
                return nil
            }
            do throws(JSONError) {
                return try JSON(parsing: bytes)
            } catch {
                damage.append("\(name) is \(error)")
                return nil
            }
        } catch  where error == .noSuchFile {
            return nil
        } catch {
            damage.append("\(name) cannot be read: \(error)")
            return nil
        }
    }

    private func write(_ document: [UInt8], to name: String, of attemptID: String) throws(TaskRunnerError) {
        do throws(Errno) {
            let attempt: Begun
            if let known = begun.withLock({ $0[attemptID] }) {
                attempt = known
            } else {
                // Of an earlier life.
                attempt = Begun(try Directory(path: root).make(attemptID))
            }
            try attempt.directory.create(document, as: name)
            // As a file system counts: whole blocks.
            attempt.bytes.withLock { $0 += (UInt64(document.count) + 4095) & ~4095 }
        } catch {
            throw TaskRunnerError(.file, "cannot write \(root)/\(attemptID)/\(name)", cause: error)
        }
    }
}

extension ProcessIdentity {
    fileprivate init?(_ json: JSON) {
        guard let pid = json["pid"]?.intValue.flatMap({ Int32(exactly: $0) }), pid > 1,
            let started = json["started"]?.unsignedValue,
            let bootID = json["boot_id"]?.stringValue
        else { return nil }
        self.init(pid: pid, started: started, bootID: bootID)
    }
}

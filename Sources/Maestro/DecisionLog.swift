import Dispatch
import Glibc
import Logging
import SchedulerCore
import ServiceSupport
import Synchronization
import WireJSON

/// The file of DECISION_LOG: one line of JSON for each placement.
///
/// Written on a queue of its own, since a disk may hang and the leader must not: what does not fit into memory meanwhile
/// is dropped, and that is told. The file is opened for each batch, so it may be moved away at any time.
final class DecisionLog: Sendable {
    private struct State {
        var waiting: [UInt8] = []
        var isWriting = false
        var dropped = 0
        /// The last batch was not written, and that was told.
        var hasFailed = false
    }

    /// Bytes that may wait for the disk.
    private static let limit = 16 << 20

    private let path: String
    private let logger: Logger
    private let queue = DispatchQueue(label: "maestro.decisions")
    private let state = Mutex(State())

    /// - Throws: why there can be no such file.
    init(path: String, logger: Logger) throws(FatalError) {
        self.path = path
        self.logger = logger
        if let failure = Self.append([], to: path) {
            throw FatalError(.configuration, "DECISION_LOG: \(path) cannot be written: \(failure)")
        }
    }

    func write(_ decision: Decision) {
        let line = decision.json.encoded() + [UInt8(ascii: "\n")]
        let mustBegin = state.withLock { state in
            guard state.waiting.count + line.count <= Self.limit else {
                state.dropped += 1
                return false
            }
            state.waiting += line
            defer { state.isWriting = true }
            return !state.isWriting
        }
        if mustBegin { queue.async { [self] in writeAll() } }
    }

    private func writeAll() {
        while true {
            let (batch, dropped) = state.withLock { state in
                defer { (state.waiting, state.dropped) = ([], 0) }
                if state.waiting.isEmpty { state.isWriting = false }
                return (state.waiting, state.dropped)
            }
            if dropped > 0 { logger.warning("decisions were not logged", metadata: ["count": "\(dropped)"]) }
            if batch.isEmpty { return }
            note(failure: Self.append(batch, to: path))
        }
    }

    /// Tells the first of a row of failures.
    private func note(failure: String?) {
        let isNews = state.withLock { state in
            defer { state.hasFailed = failure != nil }
            return !state.hasFailed
        }
        guard let failure, isNews else { return }
        logger.warning("decisions cannot be logged", metadata: ["path": "\(path)", "reason": "\(failure)"])
    }

    /// - Returns: why the bytes were not all written; nil when they were.
    private static func append(_ bytes: [UInt8], to path: String) -> String? {
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return SystemError.text(of: errno) }
        defer { close(descriptor) }
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno != EINTR {
                return SystemError.text(of: errno)
            }
        }
        return nil
    }
}

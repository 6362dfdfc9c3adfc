import EventLoop
import Glibc
import Synchronization

/// Reads one output of a task: keeps its end, writes the log file, hands every piece on.
final class OutputPipe: Sendable {
    let stream: TaskStream
    private let descriptor: Descriptor
    private let token: EventLoop.Token
    private let loop: EventLoop
    private let onOutput: TaskRunner.OutputHandler
    private let logs: TaskSpec.LogFiles
    private let fileLimit: Int
    private let state: Mutex<State>

    private struct State: ~Copyable {
        var capture: OutputCapture
        var log: Descriptor?
        var isOpen = true
    }

    init(
        _ stream: TaskStream,
        reading descriptor: consuming Descriptor,
        of spec: TaskSpec,
        on loop: EventLoop,
        onOutput: @escaping TaskRunner.OutputHandler
    ) {
        self.stream = stream
        self.descriptor = descriptor
        self.loop = loop
        self.onOutput = onOutput
        token = loop.makeToken()
        logs = spec.logs
        fileLimit = spec.fileLimit
        state = Mutex(State(capture: OutputCapture(limit: spec.captureLimit)))
    }

    /// Begins to read. `onClose` is called once, on the loop's thread, when nothing more will come.
    func begin(buffer: ReadBuffer, onClose: @escaping @Sendable () -> Void) throws(Errno) {
        try loop.watch(descriptor.number, as: token) { [self] in
            if readOnce(into: buffer) { return }
            if close() { onClose() }
        }
    }

    /// Stops reading, whoever still holds the other end. False when it was closed before.
    @discardableResult
    func close() -> Bool {
        let wasOpen = state.withLock { state in
            defer { state.isOpen = false }
            state.log = nil
            return state.isOpen
        }
        if wasOpen { loop.unwatch(token, descriptor: descriptor.number) }
        return wasOpen
    }

    /// Whether a process has it as one of its outputs: then it is one of this task.
    func isHeld(by pid: Int32) -> Bool {
        do throws(Errno) {
            return ProcessTable.holds(pipe: UInt64(try descriptor.status().st_ino), pid: pid)
        } catch {
            return false  // an open descriptor can always be asked
        }
    }

    var isOpen: Bool { state.withLock { $0.isOpen } }

    /// What was captured; to be asked for after the end.
    func capture() -> OutputCapture {
        state.withLock { state in
            state.capture.trim()
            return state.capture
        }
    }

    /// False at the end of the stream.
    private func readOnce(into buffer: ReadBuffer) -> Bool {
        buffer.bytes.withLock { bytes in
            let outcome: Descriptor.ReadOutcome
            do throws(Errno) {
                outcome = try descriptor.read(into: &bytes)
            } catch {
                return false  // a pipe that cannot be read gives nothing more, whatever the reason
            }
            switch outcome {
            case .end: return false
            case .wouldBlock: return true
            case .bytes(let count):
                take(bytes[..<count])
                return true
            }
        }
    }

    private func take(_ bytes: ArraySlice<UInt8>) {
        let offset = state.withLock { state in
            let offset = state.capture.total
            log(bytes, state: &state)
            state.capture.append(bytes)
            return offset
        }
        onOutput(stream, bytes, offset)
    }

    /// Writes as much as the file may still hold. After a failure (a full disk) nothing more is tried, so that the
    /// file holds the beginning of the stream without a hole.
    private func log(_ bytes: ArraySlice<UInt8>, state: inout State) {
        let room = UInt64(max(0, fileLimit)) - min(state.capture.logged, UInt64(max(0, fileLimit)))
        guard room > 0, state.capture.logFailure == nil else { return }
        let piece = bytes.prefix(Int(min(room, UInt64(bytes.count))))
        do throws(Errno) {
            if state.log == nil { state.log = try openLog() }
            try state.log?.write(piece)
            state.capture.logged += UInt64(piece.count)
        } catch {
            state.capture.logFailure = error
            state.log = nil
        }
    }

    private func openLog() throws(Errno) -> Descriptor {
        if let directory = logs.directory, unsafe mkdir(directory, 0o755) != 0, Errno.current != .exists {
            throw Errno.current
        }
        let flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW
        return try Descriptor(path: logs.path(of: stream), flags: flags, mode: 0o644)
    }
}

/// The one buffer into which all pipes of a loop are read, one after the other.
final class ReadBuffer: Sendable {
    let bytes = Mutex([UInt8](repeating: 0, count: 65536))
}

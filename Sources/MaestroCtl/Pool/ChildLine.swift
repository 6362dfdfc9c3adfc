import Dispatch
import Glibc
import ServiceSupport
import Synchronization

/// What we and a child tell each other: a pair of connected sockets, one of them the child's standard input and output.
final class ChildLine: Sendable {
    private let ours: Int32
    /// The child's; -1 once it was given away.
    private let theirs: Mutex<Int32>

    init() throws(FatalError) {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard unsafe socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
            throw FatalError(.internalDefect, "no sockets can be made: \(SystemError.text(of: errno))")
        }
        ours = ends[0]
        theirs = Mutex(ends[1])
    }

    deinit {
        closeTheirs()
        close(ours)
    }

    /// Starts a child that reads and writes at the other end.
    func start(_ specification: ChildProcess.Specification) throws(FatalError) -> ChildProcess {
        defer { closeTheirs() }
        var specification = specification
        specification.standardStreams = theirs.withLock { $0 }
        return try ChildProcess(specification)
    }

    private func closeTheirs() {
        let descriptor = theirs.withLock { theirs in
            defer { theirs = -1 }
            return theirs
        }
        if descriptor >= 0 { close(descriptor) }
    }

    /// Ends the child's standard input.
    func hangUp() { shutdown(ours, Int32(SHUT_WR)) }

    /// The longest line that is read.
    private static let longestLine = 1 << 20

    /// What the child says before its first newline; what it has said until then when it ends, or the time has passed.
    func firstLine(within time: Duration) async -> String {
        let descriptor = ours
        let deadline = ContinuousClock.now + time
        return await withCheckedContinuation { continuation in
            // A thread of its own waits, not one of the cooperative pool.
            DispatchQueue(label: "maestroctl.child-line").async {
                continuation.resume(returning: Self.line(from: descriptor, until: deadline))
            }
        }
    }

    private static func line(from descriptor: Int32, until deadline: ContinuousClock.Instant) -> String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while bytes.count < longestLine {
            let left = deadline - .now
            guard left > .zero else { break }
            var wish = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let ready = unsafe poll(&wish, 1, Int32(clamping: left.components.seconds * 1000 + 999))
            if ready == 0 { break }
            let count = ready > 0 ? unsafe read(descriptor, &chunk, chunk.count) : -1
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += chunk.prefix(count)
            if let end = bytes.firstIndex(of: UInt8(ascii: "\n")) { bytes.removeSubrange(end...); break }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

import Glibc
import JobModel
import ServiceSupport

/// Asks `gpucache-ask.socket` of this machine for what an unprivileged worker cannot do itself: one line with a request,
/// and one with the answer, "ok" or "err" and a text.
struct CacheService: Sendable {
    /// `RAM_ROOT/ask.sock`.
    let socketPath: String
    /// The number of the card on this machine.
    let number: Int

    /// What became of a request, for a person.
    struct Answer: Sendable {
        let ok: Bool
        let text: String
    }

    /// The socket does not exist: caches are no systemd units on this machine.
    struct Missing: Error {}

    /// Longest answer that is read, in bytes.
    private static let answerLimit = 4096

    /// Blocks until the answer is there.
    func ask(_ verb: CacheRequest.Verb) throws(Missing) -> Answer {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return failed("no socket can be made") }
        defer { close(descriptor) }
        // Nothing takes longer: the service is ended after half an hour.
        var deadline = timeval(tv_sec: 1860, tv_usec: 0)
        _ = unsafe setsockopt(
            descriptor,
            SOL_SOCKET,
            SO_RCVTIMEO,
            &deadline,
            socklen_t(MemoryLayout<timeval>.size)
        )
        guard try reach(descriptor) else { return failed("\(socketPath) cannot be reached") }
        let line = Array("\(verb.rawValue) \(number)\n".utf8)
        guard unsafe send(descriptor, line, line.count, Int32(MSG_NOSIGNAL)) == line.count else {
            return failed("the request was not sent")
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1024)
        while bytes.count < Self.answerLimit {
            let count = unsafe recv(descriptor, &chunk, chunk.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { return failed("no answer") }
            if count == 0 { break }
            bytes += chunk.prefix(count)
        }
        return Self.answer(in: String(decoding: bytes.prefix(Self.answerLimit), as: UTF8.self))
    }

    /// False when nobody takes the connection.
    private func reach(_ descriptor: Int32) throws(Missing) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = Array(socketPath.utf8) + [0]
        guard path.count <= MemoryLayout.size(ofValue: address.sun_path) else { return false }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path) }
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if result != 0, errno == ENOENT { throw Missing() }
        return result == 0
    }

    private func failed(_ what: String) -> Answer {
        Answer(ok: false, text: "\(what): \(SystemError.text(of: errno))")
    }

    static func answer(in text: String) -> Answer {
        let words = text.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
        let rest = words.count > 1 ? words[1].split(separator: "\n").joined(separator: "; ") : ""
        switch words.first?.split(separator: "\n").first {
        case "ok": return Answer(ok: true, text: rest)
        case "err": return Answer(ok: false, text: rest)
        default:
            return Answer(ok: false, text: "gpucache-ctl ended without an answer; see journalctl -u 'gpucache-ask@*'")
        }
    }
}

import EventLoop
import Glibc
import Synchronization

/// A TCP connection of this process with itself.
final class SocketPair: Sendable {
    let near: Int32
    let far: Int32
    private let sentBytes = Mutex(0)

    init() throws {
        let listener = Self.socket()
        defer { close(listener) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let connecting = Self.socket()
        near = connecting
        let accepted = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic -> Int32 in
                guard bind(listener, generic, size) == 0, listen(listener, 1) == 0,
                    getsockname(listener, generic, &size) == 0, connect(connecting, generic, size) == 0
                else { return -1 }
                return accept(listener, nil, nil)
            }
        }
        far = accepted
        guard accepted >= 0 else { throw Errno.current }
        var yes: Int32 = 1
        setsockopt(far, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit {
        close(near)
        close(far)
    }

    private static func socket() -> Int32 {
        Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    }

    /// How many bytes have been sent in all.
    var sent: Int { sentBytes.withLock { $0 } }

    /// Sends from the far end, and returns when the near end has it.
    func send(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        _ = bytes.withUnsafeBytes { Glibc.send(far, $0.baseAddress, $0.count, 0) }
        sentBytes.withLock { $0 += bytes.count }
        // Over loopback what is sent is there at once; should it not be, the kernel tells what is still under way.
        var underway: Int32 = 0
        repeat { _ = ioctl(far, UInt(TIOCOUTQ), &underway) } while underway > 0
    }

    func end() { shutdown(far, Int32(SHUT_WR)) }

    /// What has come at the near end.
    func receive() -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(near, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        return Array(buffer.prefix(max(0, count)))
    }
}

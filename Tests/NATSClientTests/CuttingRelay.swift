import Dispatch
import Glibc
import Synchronization

@testable import NATSClient

/// Stands between a client and a server, and ends a connection after a chosen number of bytes from the server.
final class CuttingRelay: Sendable {
    struct Failure: Error {}

    let port: UInt16
    private let serverPort: UInt16
    private let listener: Int32
    /// Bytes that may still pass from the server; nil for no limit.
    private let allowance = Mutex<Int?>(nil)

    init(to serverPort: UInt16) throws {
        self.serverPort = serverPort
        port = try TestServer.freePort()
        listener = Loopback.socket()
        guard Loopback.call(bind, listener, port) == 0, listen(listener, 8) == 0 else { throw Failure() }
        Thread.detach { [listener, serverPort, weak self] in
            while true {
                let client = accept(listener, nil, nil)
                guard client >= 0, let self else { return }
                let server = Loopback.socket()
                guard Loopback.call(connect, server, serverPort) == 0 else {
                    close(client)
                    close(server)
                    continue
                }
                self.join(client, server)
            }
        }
    }

    deinit {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }

    /// Ends the connection after that many bytes more; later connections pass whole.
    func cut(after count: Int) { allowance.withLock { $0 = count } }

    private func join(_ client: Int32, _ server: Int32) {
        let ended = Ends(client, server)
        Thread.detach {
            Self.pass(from: client, to: server) { $0 }
            ended.note()
        }
        Thread.detach { [weak self] in
            Self.pass(from: server, to: client) { count in self?.take(count) ?? 0 }
            ended.note()
        }
    }

    /// Ends both connections with the first direction that has ended, and closes them with the second.
    private final class Ends: Sendable {
        private let client: Int32
        private let server: Int32
        private let count = Mutex(0)

        init(_ client: Int32, _ server: Int32) {
            self.client = client
            self.server = server
        }

        func note() {
            let isLast = count.withLock { count in
                count += 1
                return count == 2
            }
            for descriptor in [client, server] {
                // What was sent before is read before the end.
                if isLast { close(descriptor) } else { shutdown(descriptor, Int32(SHUT_RDWR)) }
            }
        }
    }

    private func take(_ count: Int) -> Int {
        allowance.withLock { allowance in
            guard let left = allowance else { return count }
            if count < left {
                allowance = left - count
                return count
            }
            allowance = nil
            return left
        }
    }

    /// - Parameter take: how many of so many bytes may pass; fewer end the connection.
    private static func pass(from source: Int32, to target: Int32, take: (Int) -> Int) {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(source, &buffer, buffer.count, 0)
            guard count > 0 else { return }
            let passed = take(count)
            guard send(target, buffer, passed, Int32(MSG_NOSIGNAL)) == passed, passed == count else { return }
        }
    }

    /// Threads that block: a queue of its own each.
    private enum Thread {
        static func detach(_ body: @escaping @Sendable () -> Void) {
            DispatchQueue(label: "relay").async(execute: body)
        }
    }
}

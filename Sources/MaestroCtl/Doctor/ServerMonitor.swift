import Dispatch
import Glibc
import NATSClient
import ServiceSupport
import WireJSON

/// What a server says on its monitoring port (`http: 8222`), which tells what clients are not told.
struct ServerMonitor: Sendable, Equatable {
    let serverID: String
    /// Where the streams lie on the server's disk.
    let storeDirectory: String?
    /// The bytes that JetStream may use on disk.
    let maxStorage: UInt64?
    /// How often the server brings its files onto the disk; nil where it does not tell (before 2.10).
    let syncInterval: Duration?

    init?(_ json: JSON) {
        guard let id = json["server_id"]?.stringValue else { return nil }
        serverID = id
        let config = json["config"]
        storeDirectory = config?["store_dir"]?.stringValue
        maxStorage = config?["max_storage"]?.unsignedValue
        let isAlways = config?["sync_always"]?.boolValue == true
        syncInterval = isAlways ? .zero : config?["sync_interval"]?.intValue.map { .nanoseconds($0) }
    }

    /// Asks a server; nil when nothing answers there, or not as a NATS server does. Takes two seconds at most.
    static func ask(host: String, port: String) async -> ServerMonitor? {
        await withCheckedContinuation { continuation in
            DispatchQueue(label: "maestroctl.monitor").async {
                let answer = PlainHTTP.get("/jsz", host: host, port: port, deadline: .now + .seconds(2))
                continuation.resume(returning: answer.flatMap(parse))
            }
        }
    }

    private static func parse(_ body: [UInt8]) -> ServerMonitor? {
        do {
            return ServerMonitor(try JSON(parsing: body))
        } catch {
            // Something else answers on that port.
            return nil
        }
    }
}

/// One GET by HTTP/1.0, without encryption: enough for a monitoring port.
enum PlainHTTP {
    private static let mostBytes = 1 << 20

    /// The body of the answer; nil when there is none with status 200 before the deadline. Blocks.
    static func get(_ path: String, host: String, port: String, deadline: ContinuousClock.Instant) -> [UInt8]? {
        guard let descriptor = connect(host, port, deadline) else { return nil }
        defer { close(descriptor) }
        let request = Array("GET \(path) HTTP/1.0\r\nHost: \(host)\r\nConnection: close\r\n\r\n".utf8)
        guard unsafe send(descriptor, request, request.count, Int32(MSG_NOSIGNAL)) == request.count else {
            return nil
        }
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while wait(descriptor, POLLIN, deadline), answer.count <= mostBytes {
            let count = unsafe recv(descriptor, &chunk, chunk.count, 0)
            if count < 0, errno == EINTR || errno == EAGAIN { continue }
            guard count > 0 else { return body(of: answer) }
            answer += chunk[..<count]
        }
        return nil
    }

    static func body(of answer: [UInt8]) -> [UInt8]? {
        guard let end = answer.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
        let words = answer[..<end.lowerBound].prefix { $0 != 0x0D }.split(separator: 0x20)
        guard words.count >= 2, words[0].starts(with: "HTTP/1.".utf8), words[1].elementsEqual("200".utf8) else {
            return nil
        }
        return Array(answer[end.upperBound...])
    }

    private static func connect(_ host: String, _ port: String, _ deadline: ContinuousClock.Instant) -> Int32? {
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard unsafe getaddrinfo(host, port, &hints, &found) == 0, let list = unsafe found else { return nil }
        defer { unsafe freeaddrinfo(list) }
        var next: UnsafeMutablePointer<addrinfo>? = unsafe list
        while let address = unsafe next {
            let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
            let descriptor = unsafe socket(address.pointee.ai_family, kind, 0)
            if descriptor >= 0 {
                let status = unsafe Glibc.connect(descriptor, address.pointee.ai_addr, address.pointee.ai_addrlen)
                if status == 0 || (errno == EINPROGRESS && wait(descriptor, POLLOUT, deadline) && isUp(descriptor)) {
                    return descriptor
                }
                close(descriptor)
            }
            unsafe next = address.pointee.ai_next
        }
        return nil
    }

    private static func isUp(_ descriptor: Int32) -> Bool {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) == 0 && code == 0
    }

    private static func wait(_ descriptor: Int32, _ event: Int32, _ deadline: ContinuousClock.Instant) -> Bool {
        let left = (deadline - .now).inMilliseconds
        guard left > 0 else { return false }
        var poller = pollfd(fd: descriptor, events: Int16(event), revents: 0)
        return unsafe poll(&poller, 1, left) > 0
    }
}

extension Duration {
    fileprivate var inMilliseconds: Int32 {
        Int32(clamping: components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000)
    }
}

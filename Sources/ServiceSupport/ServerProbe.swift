import Dispatch
import Glibc

/// Looks at a NATS server that no connection can be made to, to say why: the client library only says that it could not.
package enum ServerProbe {
    package enum Finding: Sendable, Equatable {
        /// Nothing listens there, or the name is unknown: why, in the system's words.
        case unreachable(String)
        /// Something listens that is no NATS server, or does not speak.
        case notNATS
        /// A server that lets nobody in without credentials.
        case wantsCredentials
        /// A server that speaks only encrypted.
        case wantsTLS
        /// A server that should let anybody in.
        case open
    }

    /// Connects once and reads how the server introduces itself; takes a few seconds at most.
    package static func look(at url: ServerURL) async -> Finding {
        await withCheckedContinuation { continuation in
            DispatchQueue(label: "maestro.probe").async { continuation.resume(returning: examine(url)) }
        }
    }

    private static func examine(_ url: ServerURL) -> Finding {
        let (host, port) = url.endpoint
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let status = unsafe getaddrinfo(host, port, &hints, &found)
        guard status == 0, let list = unsafe found else {
            return .unreachable(unsafe gai_strerror(status).map { unsafe String(cString: $0) } ?? "unknown host")
        }
        defer { unsafe freeaddrinfo(list) }
        var problem = "no address"
        var next: UnsafeMutablePointer<addrinfo>? = unsafe list
        while let address = unsafe next {
            let descriptor = unsafe socket(
                address.pointee.ai_family,
                Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue),
                0
            )
            defer { close(descriptor) }
            var patience = timeval(tv_sec: 2, tv_usec: 0)
            for option in [SO_SNDTIMEO, SO_RCVTIMEO] {
                let size = socklen_t(MemoryLayout<timeval>.size)
                unsafe setsockopt(descriptor, SOL_SOCKET, option, &patience, size)
            }
            if unsafe connect(descriptor, address.pointee.ai_addr, address.pointee.ai_addrlen) == 0 {
                return introduction(from: descriptor)
            }
            problem = SystemError.text(of: errno)
            unsafe next = address.pointee.ai_next
        }
        return .unreachable(problem)
    }

    /// A NATS server speaks first: `INFO {...}`.
    private static func introduction(from descriptor: Int32) -> Finding {
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while text.count < 65_536, !text.contains(UInt8(ascii: "\n")) {
            let count = unsafe read(descriptor, &chunk, chunk.count)
            guard count > 0 else { break }
            text.append(contentsOf: chunk.prefix(count))
        }
        return finding(in: String(decoding: text, as: UTF8.self))
    }

    static func finding(in introduction: String) -> Finding {
        guard introduction.hasPrefix("INFO {") else { return .notNATS }
        if introduction.contains("\"tls_required\":true") { return .wantsTLS }
        return introduction.contains("\"auth_required\":true") ? .wantsCredentials : .open
    }
}

extension ServerURL {
    /// The host and the port to connect to.
    package var endpoint: (host: String, port: String) {
        var rest = text[...]
        if let colon = rest.firstIndex(of: ":") { rest = rest[colon...].dropFirst("://".count) }
        if let at = rest.lastIndex(of: "@") { rest = rest[rest.index(after: at)...] }
        if rest.first == "[", let close = rest.lastIndex(of: "]") {
            let after = rest[rest.index(after: close)...].dropFirst()
            return (String(rest.dropFirst()[..<close]), after.isEmpty ? "4222" : String(after))
        }
        guard let colon = rest.lastIndex(of: ":") else { return (String(rest), "4222") }
        return (String(rest[..<colon]), String(rest[rest.index(after: colon)...]))
    }
}

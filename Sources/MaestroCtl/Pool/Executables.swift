import Glibc
import ServiceSupport

/// Finds the programs of a pool.
enum Executables {
    /// One of our own: beside this program, else on PATH.
    static func ours(_ name: String) throws(FatalError) -> String {
        let beside = directoryOfThisProgram().map { "\($0)/\(name)" }
        if let beside, isExecutable(beside) { return beside }
        if let found = onPath(name) { return found }
        throw FatalError(
            .configuration,
            "the program \(name) is not there\(beside.map { ": neither \($0) nor on PATH" } ?? " on PATH"); build it with `make`"
        )
    }

    /// The NATS server: the one that is named, else NATS_SERVER, else on PATH or where Debian keeps daemons.
    static func natsServer(named: String?) throws(FatalError) -> String {
        let named =
            named ?? HostInfo.environmentVariable("NATS_SERVER").flatMap { $0.isEmpty ? nil : $0 } ?? "nats-server"
        if named.contains("/") {
            guard isExecutable(named) else { throw FatalError(.configuration, "\(named) is not a program") }
            return named
        }
        if let found = onPath(named, also: ["/usr/local/sbin", "/usr/sbin"]) { return found }
        throw FatalError(
            .configuration,
            "\(named) is not installed: apt install nats-server, or name one with --nats-server FILE"
        )
    }

    static func directoryOfThisProgram() -> String? {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = unsafe readlink("/proc/self/exe", &buffer, buffer.count)
        guard count > 0 else { return nil }
        let path = String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return path.lastIndex(of: "/").map { String(path[..<$0]) }
    }

    private static func onPath(_ name: String, also: [String] = []) -> String? {
        let path = (HostInfo.environmentVariable("PATH") ?? "").split(separator: ":").map(String.init)
        return (path + also).map { "\($0)/\(name)" }.first(where: isExecutable)
    }

    private static func isExecutable(_ path: String) -> Bool {
        var facts = stat()
        guard unsafe stat(path, &facts) == 0, facts.st_mode & S_IFMT == S_IFREG else { return false }
        return unsafe access(path, X_OK) == 0
    }
}

/// Ports of this machine's loopback address.
enum LoopbackPort {
    /// Whether a server could listen there now; 0 finds a free port.
    /// - Returns: the port, nil when it is taken.
    static func available(_ port: UInt16) -> UInt16? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        // As servers do: a port whose last connections are still fading away is free.
        var reuse: Int32 = 1
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
        address.sin_port = port.bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        return isBound ? UInt16(bigEndian: address.sin_port) : nil
    }
}

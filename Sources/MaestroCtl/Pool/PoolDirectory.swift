import Glibc
import ServiceSupport

/// The place of a pool of one's own: its data, its configuration, its logs, and the proof that one `up` has it.
final class PoolDirectory: Sendable {
    /// Absolute.
    let path: String
    private let lock: Int32

    var serverStore: String { path + "/nats" }
    var serverConfiguration: String { path + "/nats-server.conf" }
    var maestroConfiguration: String { path + "/maestro.conf" }
    var addressFile: String { path + "/nats-url" }
    var logs: String { path + "/log" }
    var caches: String { path + "/gpucache" }
    var memoryCaches: String { path + "/gpucache-ram" }
    var jobLogs: String { path + "/job-logs" }

    /// Where a pool lives when nobody says.
    static var standard: String {
        if let data = HostInfo.environmentVariable("XDG_DATA_HOME"), data.hasPrefix("/") {
            return data + "/maestro/pool"
        }
        return (HostInfo.environmentVariable("HOME") ?? "/tmp") + "/.local/share/maestro/pool"
    }

    /// Makes the directory if it is missing, and takes it.
    /// - Throws: when another `up` has it, with its process id, or it cannot be written.
    init(_ given: String) throws(FatalError) {
        path = try Self.absolute(given)
        try Self.make(path)
        lock = try Self.take(path + "/lock")
        for directory in [serverStore, logs, caches, memoryCaches, jobLogs] { try Self.make(directory) }
    }

    deinit { close(lock) }

    private static func absolute(_ path: String) throws(FatalError) -> String {
        guard !path.isEmpty else { throw FatalError(.usage, "--dir is empty") }
        if path.hasPrefix("/") { return path }
        guard let current = unsafe getcwd(nil, 0) else {
            throw FatalError(.usage, "--dir \(path): the current directory is gone")
        }
        defer { unsafe free(current) }
        return unsafe String(cString: current) + "/" + path
    }

    /// Makes a directory and those above it, for the owner alone.
    static func make(_ path: String) throws(FatalError) {
        var partial = ""
        for component in path.split(separator: "/") {
            partial += "/" + component
            if unsafe mkdir(partial, 0o700) != 0, errno != EEXIST {
                throw FatalError(
                    .configuration,
                    "the directory \(partial) cannot be made: \(SystemError.text(of: errno))"
                )
            }
        }
    }

    private static func take(_ path: String) throws(FatalError) -> Int32 {
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw FatalError(.configuration, "\(path) cannot be written: \(SystemError.text(of: errno))")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let owner = owner(of: path)
            close(descriptor)
            throw FatalError(
                .taken,
                "another maestroctl up\(owner) has this directory; use that pool, end it, or choose another --dir"
            )
        }
        let text = Array("\(HostInfo.processID)\n".utf8)
        guard ftruncate(descriptor, 0) == 0, unsafe Glibc.write(descriptor, text, text.count) == text.count else {
            throw FatalError(.configuration, "\(path) cannot be written: \(SystemError.text(of: errno))")
        }
        return descriptor
    }

    private static func owner(of path: String) -> String {
        do {
            let text = String(decoding: try FileContents.read(path, limit: 64), as: UTF8.self)
            return Int(text.split(separator: "\n").first ?? "").map { " (process \($0))" } ?? ""
        } catch {
            return ""
        }
    }

    /// Writes a small file whole, or leaves what was there.
    func write(_ text: String, to file: String) throws(FatalError) {
        let part = file + ".part"
        let bytes = Array(text.utf8)
        let descriptor = unsafe open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw FatalError(.configuration, "\(part) cannot be written: \(SystemError.text(of: errno))")
        }
        let isWritten = unsafe Glibc.write(descriptor, bytes, bytes.count) == bytes.count
        close(descriptor)
        guard isWritten, unsafe rename(part, file) == 0 else {
            throw FatalError(.configuration, "\(file) cannot be written: \(SystemError.text(of: errno))")
        }
    }

    func remove(_ file: String) { unsafe _ = unlink(file) }

    func exists(_ file: String) -> Bool { unsafe access(file, F_OK) == 0 }

    /// A program's log; one that has grown large is put aside first.
    func log(of program: String) -> String {
        let path = "\(logs)/\(program).log"
        if let size = FileContents.size(path), size > 10 << 20 { unsafe _ = rename(path, path + ".1") }
        return path
    }
}

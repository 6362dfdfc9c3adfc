import EventLoop
import Glibc
import ServiceSupport
import TaskRunner

/// The file of a journal, for the time that this process has it to itself.
///
/// Whoever writes has the lock of the file that stands under the name: a cleaned-up journal is a new file, and what was
/// opened before is then opened again.
struct JournalFile: ~Copyable {
    /// How long another process may have the journal: it syncs some megabytes at most.
    static let patience = Duration.seconds(20)

    let path: String
    private let descriptor: Descriptor

    /// Opens the file, making it and its directory where they are missing, and waits for its lock.
    init(_ path: String) throws(FatalError) {
        self.path = path
        let deadline = ContinuousClock.now + Self.patience
        while true {
            let opened = try Self.open(path)
            try Self.lock(opened, path, deadline)
            guard Self.stands(opened, at: path) else { continue }
            descriptor = opened
            return
        }
    }

    private static func open(_ path: String) throws(FatalError) -> Descriptor {
        let flags = O_RDWR | O_APPEND | O_NOFOLLOW
        do throws(Errno) {
            return try Descriptor(path: path, flags: flags)
        } catch {
            guard error == .noSuchFile else { throw failure(path, error) }
        }
        do throws(FatalError) {
            if let slash = path.lastIndex(of: "/") { try PoolDirectory.make(String(path[..<slash])) }
        } catch {
            throw FatalError(.inputOutput, error.message)
        }
        do throws(Errno) {
            return try Descriptor(path: path, flags: flags | O_CREAT, mode: 0o600)
        } catch {
            throw failure(path, error)
        }
    }

    private static func lock(
        _ descriptor: borrowing Descriptor,
        _ path: String,
        _ deadline: ContinuousClock.Instant
    ) throws(FatalError) {
        // A lock that is waited for by the kernel has no deadline; the holder needs some milliseconds.
        while flock(descriptor.number, LOCK_EX | LOCK_NB) != 0 {
            guard Errno.current == .wouldBlock else { throw failure(path, .current) }
            guard ContinuousClock.now < deadline else {
                throw FatalError(
                    .inputOutput,
                    "the submission journal \(path) is locked by another maestroctl that does not go on"
                )
            }
            usleep(5000)
        }
    }

    /// Whether the open file is the one under the name.
    private static func stands(_ descriptor: borrowing Descriptor, at path: String) -> Bool {
        var (named, opened) = (stat(), stat())
        guard unsafe stat(path, &named) == 0, unsafe fstat(descriptor.number, &opened) == 0 else { return false }
        return named.st_ino == opened.st_ino && named.st_dev == opened.st_dev
    }

    private static func synchronizeDirectory(of path: String) throws(Errno) {
        let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        try Descriptor(path: directory, flags: O_RDONLY | O_DIRECTORY).synchronize()
    }

    static func failure(_ path: String, _ error: Errno) -> FatalError {
        FatalError(.inputOutput, "the submission journal \(path) cannot be written: \(error)")
    }

    /// Appends whole lines; when this returns they are on the disk, if `durable`.
    borrowing func append(_ lines: [UInt8], durable: Bool) throws(FatalError) {
        do throws(Errno) {
            // Whoever writes the first line brings the file's name onto the disk too.
            let isFirst = try descriptor.status().st_size == 0
            // Behind the half line that a crash may have left, a new one begins.
            let start: [UInt8] = try endsInLine() ? [] : [UInt8(ascii: "\n")]
            try descriptor.write((start + lines)[...])
            if durable { try descriptor.synchronize() }
            if durable, isFirst { try Self.synchronizeDirectory(of: path) }
        } catch {
            throw Self.failure(path, error)
        }
    }

    private borrowing func endsInLine() throws(Errno) -> Bool {
        let size = try descriptor.status().st_size
        guard size > 0 else { return true }
        var last: UInt8 = 0
        let count = unsafe pread(descriptor.number, &last, 1, size - 1)
        guard count == 1 else { throw Errno.current }
        return last == UInt8(ascii: "\n")
    }

    /// Removes the file: whoever writes next makes a new one.
    borrowing func remove() throws(FatalError) {
        guard unsafe unlink(path) == 0 else { throw Self.failure(path, .current) }
    }

    /// Puts another content in place of the file's, in one step.
    borrowing func replace(with lines: [UInt8]) throws(FatalError) {
        let part = path + ".new"
        do throws(Errno) {
            let file = try Descriptor(path: part, flags: O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
            try file.write(lines[...])
            try file.synchronize()
            guard unsafe rename(part, path) == 0 else { throw Errno.current }
            try Self.synchronizeDirectory(of: path)
        } catch {
            throw Self.failure(path, error)
        }
    }
}

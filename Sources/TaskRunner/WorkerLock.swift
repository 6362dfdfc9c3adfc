import EventLoop
import Glibc

/// The right to be the only worker of a card on this machine, held for the life of the process.
package struct WorkerLock: ~Copyable, Sendable {
    private let descriptor: Descriptor

    /// Takes the lock and writes this process's id into the file.
    ///
    /// Throws `locked` with the pid of the other worker, and `file` when the file cannot be used.
    package init(path: String) throws(TaskRunnerError) { descriptor = try Self.acquire(path) }

    private static func acquire(_ path: String) throws(TaskRunnerError) -> Descriptor {
        let descriptor = try open(path)
        guard flock(descriptor.number, LOCK_EX | LOCK_NB) == 0 else {
            let cause = Errno.current
            guard cause == .wouldBlock else {
                throw TaskRunnerError(.file, "cannot lock \(path)", cause: cause)
            }
            let holder = holder(path)
            let who = holder.map { "the process \($0)" } ?? "another process"
            throw TaskRunnerError(.locked(pid: holder), "\(who) is already the worker of this card (\(path) is locked)")
        }
        do throws(Errno) {
            guard ftruncate(descriptor.number, 0) == 0 else { throw Errno.current }
            try descriptor.write(Array("\(getpid())\n".utf8)[...])
        } catch {
            throw TaskRunnerError(.file, "cannot write the lock file \(path)", cause: error)
        }
        return descriptor
    }

    private static func open(_ path: String) throws(TaskRunnerError) -> Descriptor {
        do throws(Errno) {
            return try Descriptor(path: path, flags: O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o644)
        } catch {
            throw TaskRunnerError(.file, "cannot open the lock file \(path)", cause: error)
        }
    }

    private static func holder(_ path: String) -> Int32? {
        do throws(Errno) {
            let bytes = try Descriptor(path: path, flags: O_RDONLY | O_NOFOLLOW).readAll(limit: 64) ?? []
            return Int32(String(decoding: bytes.prefix { $0 > 32 }, as: UTF8.self))
        } catch {
            return nil  // only the number for the message is lost
        }
    }
}

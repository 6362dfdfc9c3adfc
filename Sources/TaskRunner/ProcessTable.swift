import CProcess
import EventLoop
import Glibc

/// A process as `/proc` shows it.
package struct ProcessEntry: Sendable, Equatable, CustomStringConvertible {
    package let pid: Int32
    package let parent: Int32
    package let session: Int32
    /// One letter: R, S, D (in the kernel, cannot be killed now), Z (dead, not reaped), ...
    package let state: Character
    package let name: String
    /// Clock ticks after boot; with the pid it names one process for as long as the machine is up.
    package let started: UInt64

    package var isDead: Bool { state == "Z" || state == "X" }
    package var description: String { "\(name) (pid \(pid), state \(state))" }

    /// Reads one process; nil when there is none.
    package init?(pid: Int32) {
        var stat = cprocess_stat()
        guard unsafe cprocess_stat(pid, &stat) == 0 else { return nil }
        self.pid = pid
        parent = stat.parent
        session = stat.session
        state = Character(Unicode.Scalar(UInt8(bitPattern: stat.state)))
        name = unsafe withUnsafeBytes(of: stat.name) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        started = stat.started
    }
}

/// A process that can be told from every other of this machine, also after a reboot.
package struct ProcessIdentity: Sendable, Equatable {
    package let pid: Int32
    /// Clock ticks after boot.
    package let started: UInt64
    /// The kernel's id of this boot.
    package let bootID: String

    package init(pid: Int32, started: UInt64, bootID: String) {
        self.pid = pid
        self.started = started
        self.bootID = bootID
    }
}

/// What can be learned about the processes of this machine.
package enum ProcessTable {
    /// The kernel's id of this boot; empty where `/proc` has none.
    package static let bootID: String = {
        guard let bytes = read("/proc/sys/kernel/random/boot_id", limit: 128) else { return "" }
        return String(decoding: bytes.filter { $0 > 32 }, as: UTF8.self)
    }()

    /// All processes that this one may see.
    static func all() throws(Errno) -> [ProcessEntry] {
        try unsafe list { unsafe cprocess_all($0, $1) }.compactMap { ProcessEntry(pid: $0) }
    }

    /// The children of this process, those included that fell to it when their parents died.
    static func children() throws(Errno) -> [ProcessEntry] {
        do throws(Errno) {
            return try children(of: getpid()).compactMap { ProcessEntry(pid: $0) }
        } catch  where error == .noSuchFile {
            let me = getpid()
            return try all().filter { $0.parent == me }
        }
    }

    /// The children that fell to this process when their parents died; perhaps others with them.
    /// - Parameter since: a process that was started a moment ago. If it is given, children that are older than it
    ///   may be left out where that makes the answer cheaper.
    static func adopted(since: Int32? = nil) throws(Errno) -> [ProcessEntry] {
        do throws(Errno) {
            return try unsafe list { unsafe cprocess_adopted($0, $1) }.compactMap { ProcessEntry(pid: $0) }
        } catch  where error == .noSuchFile {
            // A kernel without CONFIG_PROC_CHILDREN: look at everybody, or at everybody who is new.
            let me = getpid()
            if let since, let newer = newer(than: since) { return newer.filter { $0.parent == me } }
            return try all().filter { $0.parent == me }
        }
    }

    private static func children(of parent: Int32) throws(Errno) -> [Int32] {
        try unsafe list { unsafe cprocess_children(parent, $0, $1) }
    }

    /// Most processes that are told of one task.
    private static let mostDescendants = 1024

    /// These processes and what descends from them, without looking at every process of the machine where the kernel
    /// allows that; at most ``mostDescendants``.
    static func descendants(of roots: [ProcessEntry]) throws(Errno) -> [Int32] {
        var found = roots.map(\.pid)
        var next = 0
        do throws(Errno) {
            while next < found.count, found.count < mostDescendants {
                found += try children(of: found[next])
                next += 1
            }
        } catch  where error == .noSuchFile {
            found = try trees(of: roots).map(\.pid)
        }
        return Array(found.prefix(mostDescendants))
    }

    /// The processes that were started after a recent one; nil when they cannot be told by their ids.
    ///
    /// Ids are given out in ascending order and start again below 2^15 at the earliest.
    private static func newer(than pid: Int32) -> [ProcessEntry]? {
        let newest = cprocess_newest()
        guard newest >= pid, newest - pid <= 64 else { return nil }
        return newest == pid ? [] : (pid + 1...newest).compactMap { ProcessEntry(pid: $0) }
    }

    /// These processes and all that descend from them.
    static func trees(of roots: [ProcessEntry]) throws(Errno) -> [ProcessEntry] {
        guard !roots.isEmpty else { return [] }
        let byParent = Dictionary(grouping: try all(), by: \.parent)
        var found = roots
        var seen = Set(roots.map(\.pid))
        var next = 0
        while next < found.count {
            for child in byParent[found[next].pid] ?? [] where seen.insert(child.pid).inserted { found.append(child) }
            next += 1
        }
        return found
    }

    /// A variable of the environment that a process was started with; nil without one, and for a process that we
    /// may not look into.
    static func variable(_ name: String, of pid: Int32) -> String? {
        // 2 MiB is the most that Linux takes for arguments and environment under the usual stack limit.
        guard let bytes = read("/proc/\(pid)/environ", limit: 2 << 20) else { return nil }
        let prefix = Array("\(name)=".utf8)
        guard let entry = bytes.split(separator: 0).first(where: { $0.starts(with: prefix) }) else { return nil }
        return String(decoding: entry.dropFirst(prefix.count), as: UTF8.self)
    }

    /// Whether one of the standard outputs of a process is the pipe with this inode.
    static func holds(pipe inode: UInt64, pid: Int32) -> Bool {
        [1, 2].contains { descriptor in
            do throws(Errno) {
                return try readLink("/proc/\(pid)/fd/\(descriptor)") == "pipe:[\(inode)]"
            } catch {
                return false  // closed, gone, or somebody else's: no evidence either way
            }
        }
    }

    private static func read(_ path: String, limit: Int) -> [UInt8]? {
        do throws(Errno) {
            return try Descriptor(path: path, flags: O_RDONLY).readAll(limit: limit)
        } catch {
            return nil  // the process is gone or not ours to read
        }
    }

    private static func list(
        _ fill: (UnsafeMutablePointer<pid_t>?, Int32) -> Int32
    ) throws(Errno) -> [pid_t] {
        var capacity: Int32 = 512
        while true {
            var pids = [pid_t](repeating: 0, count: Int(capacity))
            let count = unsafe pids.withUnsafeMutableBufferPointer { unsafe fill($0.baseAddress, capacity) }
            guard count >= 0 else { throw Errno.current }
            if count <= capacity { return Array(pids.prefix(Int(count))) }
            capacity = count + 512
        }
    }
}

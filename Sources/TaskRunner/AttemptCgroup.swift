import EventLoop
import Glibc

/// The cgroup of one attempt: what it starts cannot leave it, and is killed as one.
final class AttemptCgroup: Sendable {
    let directory: Directory
    private let name: String
    private let tree: CgroupTree

    init(_ directory: consuming Directory, name: String, in tree: CgroupTree) {
        self.directory = directory
        self.name = name
        self.tree = tree
    }

    /// What a process is started into.
    var number: Int32 { directory.descriptor.number }

    /// Whether a process lives in it.
    func isPopulated() throws(Errno) -> Bool { try Self.isPopulated(directory) }

    /// Kills everything in it at once, also what is being forked at this moment.
    func kill() throws(Errno) { try directory.writeInPlace("1", to: "cgroup.kill") }

    /// The processes in it, those in cgroups that the job itself has made below left out.
    func processes() throws(Errno) -> [Int32] { try Self.processes(of: directory) }

    /// How many of its processes the kernel has killed because its memory was used up.
    func killsForMemory() -> Int {
        do throws(Errno) {
            return Int(try Self.value(of: "oom_kill", in: directory.read("memory.events", limit: 4096) ?? []) ?? "")
                ?? 0
        } catch {
            return 0  // without the controller there is no such file, and nothing is killed for that
        }
    }

    /// Removes it; what is still populated stays, for the next life of the worker to end.
    func remove() { _ = tree.remove(name) }

    static func isPopulated(_ directory: borrowing Directory) throws(Errno) -> Bool {
        value(of: "populated", in: try directory.read("cgroup.events", limit: 4096) ?? []) == "1"
    }

    static func processes(of directory: borrowing Directory) throws(Errno) -> [Int32] {
        let text = String(decoding: try directory.read("cgroup.procs", limit: 1 << 20) ?? [], as: UTF8.self)
        return text.split(separator: "\n").compactMap { Int32($0) }
    }

    /// Blocks until nothing lives in the cgroup; false at the deadline.
    static func waitUntilEmpty(
        _ directory: borrowing Directory,
        _ deadline: ContinuousClock.Instant
    ) throws(Errno) -> Bool {
        let events = try Descriptor(at: directory.descriptor.number, path: "cgroup.events", flags: O_RDONLY)
        while true {
            guard lseek(events.number, 0, SEEK_SET) == 0 else { throw Errno.current }
            let text = try events.readAll(limit: 4096) ?? []
            if value(of: "populated", in: text) != "1" { return true }
            let left = ContinuousClock.now.duration(to: deadline)
            guard left > .zero else { return false }
            // The kernel tells a change of the file as an exceptional condition.
            var watched = pollfd(fd: events.number, events: Int16(POLLPRI), revents: 0)
            _ = unsafe poll(&watched, 1, Int32(clamping: left.components.seconds * 1000 + 100))
        }
    }

    /// The value behind a key in a file of lines `key value`.
    private static func value(of key: String, in bytes: [UInt8]) -> Substring? {
        String(decoding: bytes, as: UTF8.self).split(separator: "\n").lazy
            .map { $0.split(separator: " ") }.first { $0.count == 2 && $0[0] == key }.map { $0[1] }
    }
}

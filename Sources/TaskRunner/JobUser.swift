import EventLoop
import Glibc

/// The user that jobs run as, where that is not the worker's own.
package struct JobUser: Sendable, Equatable {
    package let name: String
    package let user: uid_t
    package let group: gid_t
    /// All of its groups, the first one included.
    package let groups: [gid_t]
    package let home: String
    package let shell: String

    /// Room for one entry of the user database; longer ones are refused.
    private static let entryBytes = 1 << 14

    /// Looks a user up. Throws `invalidTask` for one that is unknown or root.
    package init(named name: String) throws(TaskRunnerError) {
        var entry = unsafe passwd()
        var found: UnsafeMutablePointer<passwd>?
        // The entry points into the buffer, so that has to stay where it is.
        let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: Self.entryBytes)
        defer { unsafe buffer.deallocate() }
        let error = unsafe getpwnam_r(name, &entry, buffer, Self.entryBytes, &found)
        guard error == 0, unsafe found != nil else {
            let cause = error == 0 ? nil : Errno(error)
            throw TaskRunnerError(.invalidTask, "there is no user \(name) on this machine", cause: cause)
        }
        user = unsafe entry.pw_uid
        group = unsafe entry.pw_gid
        home = unsafe String(cString: entry.pw_dir)
        shell = unsafe String(cString: entry.pw_shell)
        groups = Self.groups(of: name, first: group)
        self.name = name
        guard user != 0 else {
            throw TaskRunnerError(.invalidTask, "\(name) is root, who may do anything; jobs may not run as root")
        }
    }

    private static func groups(of name: String, first: gid_t) -> [gid_t] {
        var count: Int32 = 64
        while true {
            var groups = [gid_t](repeating: 0, count: Int(count))
            let asked = count
            if unsafe getgrouplist(name, first, &groups, &count) >= 0 { return Array(groups.prefix(Int(count))) }
            // It has told how many there are.
            if count <= asked { return [first] }
        }
    }

    /// What of the capabilities that it takes to start, watch, kill and clean up behind another user's processes this
    /// process lacks (capabilities(7)).
    package static func missingCapabilities() -> [String] {
        let needed: [(name: String, bit: Int)] = [
            ("CAP_CHOWN", 0), ("CAP_DAC_OVERRIDE", 1), ("CAP_FOWNER", 3), ("CAP_KILL", 5), ("CAP_SETGID", 6),
            ("CAP_SETUID", 7), ("CAP_SYS_PTRACE", 19),
        ]
        let effective = effectiveCapabilities()
        return needed.filter { effective & (1 << UInt64($0.bit)) == 0 }.map(\.name)
    }

    private static func effectiveCapabilities() -> UInt64 {
        do throws(Errno) {
            let bytes = try Descriptor(path: "/proc/self/status", flags: O_RDONLY).readAll(limit: 1 << 16) ?? []
            let line = String(decoding: bytes, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("CapEff:") }
            return line?.split(separator: "\t").last.flatMap { UInt64($0, radix: 16) } ?? 0
        } catch {
            return 0
        }
    }
}

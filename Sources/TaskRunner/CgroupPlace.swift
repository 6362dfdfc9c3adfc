import CProcess
import EventLoop
import Glibc

/// Where in the cgroup v2 tree a worker may make cgroups of its own.
package struct CgroupPlace: Sendable, Equatable {
    package var path: String
    /// The cgroup below ``path`` that this process is in already; nil: none.
    package var leaf: String?

    package init(path: String, leaf: String? = nil) {
        self.path = path
        self.leaf = leaf
    }

    /// The cgroup that systemd has left to this process's unit (`Delegate=`); nil when there is none.
    ///
    /// systemd marks what it delegates with an extended attribute (its CGROUP_DELEGATION document). With
    /// `DelegateSubgroup=` this process is one level below.
    package static func delegated() -> CgroupPlace? {
        guard let own = ofThisProcess() else { return nil }
        if isMarked(own) { return CgroupPlace(path: own) }
        guard let slash = own.lastIndex(of: "/"), isMarked(String(own[..<slash])) else { return nil }
        return CgroupPlace(path: String(own[..<slash]), leaf: String(own[own.index(after: slash)...]))
    }

    /// Where this process's cgroup is mounted; nil without cgroup v2.
    private static func ofThisProcess() -> String? {
        guard let cgroups = text("/proc/self/cgroup"), let mounts = text("/proc/self/mountinfo") else { return nil }
        return path(cgroups: cgroups, mounts: mounts)
    }

    /// - Parameters:
    ///   - cgroups: `/proc/self/cgroup`.
    ///   - mounts: `/proc/self/mountinfo`.
    static func path(cgroups: String, mounts: String) -> String? {
        guard let line = cgroups.split(separator: "\n").first(where: { $0.hasPrefix("0::/") }) else { return nil }
        let own = line.dropFirst("0::".count)
        for mount in mounts.split(separator: "\n") {
            // id parent device root place options [tags] - type source options: see proc(5).
            let fields = mount.split(separator: " ")
            guard let dash = fields.firstIndex(of: "-"), fields.count > dash + 1, fields[dash + 1] == "cgroup2",
                dash >= 6
            else { continue }
            let root = fields[3] == "/" ? "" : fields[3]
            guard own.hasPrefix(root) else { continue }
            let below = own.dropFirst(root.count)
            guard below.isEmpty || below.hasPrefix("/") else { continue }
            return String(fields[4]) + (below == "/" ? "" : String(below))
        }
        return nil
    }

    private static func isMarked(_ path: String) -> Bool { unsafe cprocess_is_delegated(path) == 1 }

    private static func text(_ path: String) -> String? {
        do throws(Errno) {
            return try Descriptor(path: path, flags: O_RDONLY).readAll(limit: 1 << 20)
                .map { String(decoding: $0, as: UTF8.self) }
        } catch {
            return nil  // without /proc there is no place
        }
    }
}

import Glibc
import ServiceSupport

/// Who uses this program.
enum Who {
    /// What jobs are counted by that are submitted here: `user@host`. Nobody proves it to the pool.
    static let submits = "\(user)@\(HostInfo.name)"

    private static var user: String {
        let id = geteuid()
        // Asked once, before this program has any other thread that asks. A user without an entry is common in containers.
        guard let entry = unsafe getpwuid(id), let name = unsafe entry.pointee.pw_name else { return "uid\(id)" }
        return unsafe String(cString: name)
    }
}

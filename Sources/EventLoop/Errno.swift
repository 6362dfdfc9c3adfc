import Glibc

/// An error number of the system, with its text.
package struct Errno: Error, Equatable, Sendable, CustomStringConvertible {
    package let code: Int32

    package init(_ code: Int32) { self.code = code }

    /// The error number that the last failed call of this thread has left.
    package static var current: Errno { Errno(errno) }

    package static let noSuchFile = Errno(ENOENT)
    package static let noSuchProcess = Errno(ESRCH)
    package static let exists = Errno(EEXIST)
    package static let accessDenied = Errno(EACCES)
    package static let notPermitted = Errno(EPERM)
    package static let notDirectory = Errno(ENOTDIR)
    package static let isDirectory = Errno(EISDIR)
    package static let symbolicLink = Errno(ELOOP)
    package static let wouldBlock = Errno(EWOULDBLOCK)
    package static let noSpace = Errno(ENOSPC)
    package static let notExecutableFormat = Errno(ENOEXEC)
    package static let argumentsTooLong = Errno(E2BIG)

    package var description: String {
        // Thread-safe in glibc since 2.32.
        guard let text = unsafe strerror(code) else { return "error \(code)" }
        return unsafe String(cString: text)
    }
}

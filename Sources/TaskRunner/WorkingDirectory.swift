import CProcess
import EventLoop
import Glibc

/// An open directory for a task to start in.
///
/// The directory is held open from the check of its place to the start of the process, so that nobody can put
/// another one under its name in between.
package final class WorkingDirectory: Sendable {
    let descriptor: Descriptor
    /// Where it is, every symbolic link resolved.
    package let path: String

    init(_ descriptor: consuming Descriptor) throws(Errno) {
        path = try descriptor.realPath()
        self.descriptor = descriptor
    }

    /// One whose place is known.
    init(_ descriptor: consuming Descriptor, path: String) {
        self.path = path
        self.descriptor = descriptor
    }

    /// Opens any directory of the machine.
    ///
    /// Throws `workingDirectory` when it is missing, is no directory or may not be entered.
    package convenience init(anywhere path: String) throws(TaskRunnerError) {
        do throws(Errno) {
            try self.init(Descriptor(path: path, flags: Int32(CPROCESS_O_PATH) | O_DIRECTORY))
        } catch {
            throw TaskRunnerError(.workingDirectory, "cannot enter the working directory \(path)", cause: error)
        }
    }

    /// Opens a directory that has to lie in `root` (or be it) after every symbolic link was followed.
    ///
    /// Throws `outsideCache` when it lies elsewhere, and what ``init(anywhere:)`` throws.
    package convenience init(_ path: String, inside root: WorkingDirectory) throws(TaskRunnerError) {
        try self.init(anywhere: path)
        guard isInside(root) else {
            throw TaskRunnerError(
                .outsideCache,
                "the working directory \(path) is \(self.path), which is outside the card's cache \(root.path)"
            )
        }
    }

    /// Whether it lies in the other directory or is it.
    func isInside(_ root: WorkingDirectory) -> Bool {
        path == root.path || path.hasPrefix(root.path == "/" ? "/" : root.path + "/")
    }
}

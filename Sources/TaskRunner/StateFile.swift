import EventLoop
import Glibc

/// A small file of a worker's own that outlives it. Blocks on the file system.
package struct StateFile: Sendable {
    package let directory: String
    package let name: String

    /// Longest content, in bytes.
    private static let limit = 1 << 20

    package init(directory: String, name: String) {
        self.directory = directory
        self.name = name
    }

    /// The content; nil when there is no such file.
    package func read() throws(TaskRunnerError) -> [UInt8]? {
        do throws(Errno) {
            guard let bytes = try Directory(path: directory).read(name, limit: Self.limit) else { throw Errno(EFBIG) }
            return bytes
        } catch  where error == .noSuchFile {
            return nil
        } catch {
            throw TaskRunnerError(.file, "cannot read \(directory)/\(name)", cause: error)
        }
    }

    /// Replaces the content in one step; it is on the disk when this returns.
    package func write(_ bytes: [UInt8]) throws(TaskRunnerError) {
        do throws(Errno) {
            try Directory(path: directory).write(bytes, to: name, durable: true)
        } catch {
            throw TaskRunnerError(.file, "cannot write \(directory)/\(name)", cause: error)
        }
    }
}

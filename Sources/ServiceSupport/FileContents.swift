import Glibc

/// Reads small files whole.
package enum FileContents {
    /// Why a file could not be read.
    package struct Failure: Error, Equatable, CustomStringConvertible {
        package let path: String
        /// For a person: "No such file or directory".
        package let reason: String
        /// There is no such file.
        package let isMissing: Bool

        package var description: String { "\(path): \(reason)" }
    }

    /// The bytes of a file.
    /// - Parameter limit: the most bytes it may hold; a larger one is refused.
    package static func read(_ path: String, limit: Int) throws(Failure) -> [UInt8] {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(path) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = unsafe Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw failure(path)
            }
            if count == 0 { return bytes }
            bytes.append(contentsOf: chunk.prefix(count))
            guard bytes.count <= limit else {
                throw Failure(path: path, reason: "it is larger than \(limit) bytes", isMissing: false)
            }
        }
    }

    /// How many bytes a file holds; nil if there is none.
    package static func size(_ path: String) -> UInt64? {
        var facts = stat()
        return unsafe stat(path, &facts) == 0 ? UInt64(max(0, facts.st_size)) : nil
    }

    private static func failure(_ path: String) -> Failure {
        let code = errno
        return Failure(path: path, reason: SystemError.text(of: code), isMissing: code == ENOENT)
    }
}

/// What the system says about a failed call.
package enum SystemError {
    /// The text of an `errno`, such as "Permission denied".
    package static func text(of code: Int32) -> String {
        // glibc's strerror is safe between threads from 2.32 on: its buffer belongs to the thread.
        unsafe strerror(code).map { unsafe String(cString: $0) } ?? "error \(code)"
    }
}

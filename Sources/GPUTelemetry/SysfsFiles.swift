import Glibc

/// Looks at files and directories of the kernel's trees once, where keeping them open has no use.
enum SysfsFiles {
    /// The names in a directory, sorted; nil when it cannot be listed.
    static func names(in directory: String) -> [String]? {
        guard let handle = unsafe opendir(directory) else { return nil }
        defer { unsafe closedir(handle) }
        var names: [String] = []
        while let entry = unsafe readdir(handle) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { field in
                unsafe field.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    /// The first line of a file; nil when there is none to read.
    static func line(_ path: String) -> String? {
        do {
            return try AttributeFile(path).line()
        } catch {
            return nil
        }
    }

    static func integer(_ path: String) -> Int64? {
        do {
            return try AttributeFile(path).integer()
        } catch {
            return nil
        }
    }

    /// The last component of where a symbolic link points to; nil when it is none.
    static func linkName(_ path: String) -> String? {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let length = unsafe readlink(path, &buffer, buffer.count)
        guard length > 0 else { return nil }
        let target = buffer[..<length].map { UInt8(bitPattern: $0) }
        let name = target.reversed().prefix { $0 != UInt8(ascii: "/") }.reversed()
        return String(decoding: Array(name), as: UTF8.self)
    }

    /// A whole file of at most `limit` bytes; nil when it cannot be read or is longer.
    static func contents(_ path: String, limit: Int) -> [UInt8]? {
        let number = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard number >= 0 else { return nil }
        defer { close(number) }
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while true {
            let count = unsafe read(number, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0, all.count + count <= limit else { return nil }
            if count == 0 { return all }
            all.append(contentsOf: chunk[..<count])
        }
    }
}

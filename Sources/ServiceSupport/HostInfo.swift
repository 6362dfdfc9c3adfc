import CService
import Glibc

/// Where this process runs.
package enum HostInfo {
    /// The name of the host as the kernel knows it; "localhost" when it has none.
    package static var name: String {
        var buffer = [CChar](repeating: 0, count: 256)
        let status = unsafe gethostname(&buffer, buffer.count - 1)
        let name = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return status == 0 && !name.isEmpty ? name : "localhost"
    }

    /// The kernel's id of this boot: processes of another one are surely gone.
    /// - Throws: when /proc is not mounted.
    package static func bootID() throws(FileContents.Failure) -> String {
        let bytes = try FileContents.read("/proc/sys/kernel/random/boot_id", limit: 256)
        return String(decoding: bytes.prefix { $0 > 0x20 }, as: UTF8.self)
    }

    /// Whether this process may do anything to files and processes.
    package static var isRoot: Bool { geteuid() == 0 }

    package static var processID: Int { Int(getpid()) }

    /// The value of an environment variable; nil when it is not set or not UTF-8.
    package static func environmentVariable(_ name: String) -> String? {
        unsafe getenv(name).flatMap { unsafe String(validatingCString: $0) }
    }

    /// All environment variables that are UTF-8.
    package static var environment: [String: String] {
        var variables: [String: String] = [:]
        var entry = unsafe service_environment()
        while let pointer = unsafe entry?.pointee {
            if let text = unsafe String(validatingCString: pointer), let separator = text.firstIndex(of: "=") {
                variables[String(text[..<separator])] = String(text[text.index(after: separator)...])
            }
            unsafe entry = entry?.successor()
        }
        return variables
    }
}

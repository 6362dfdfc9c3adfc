import Foundation

/// The C libraries of a made-up machine, compiled once for a process.
package final class FakeLibraries: Sendable {
    /// A release of NVML.
    package enum NVML: String, Sendable, CaseIterable {
        case current
        /// Lacks the functions that came after release 470.
        case old
        /// A library of the name that is no NVML at all.
        case foreign
        /// None is installed.
        case missing
    }

    /// Why they could not be compiled or loaded.
    package struct Unusable: Error, CustomStringConvertible {
        package let description: String
    }

    let preload: URL
    private let directories: [NVML: URL]

    private static let shared = Result { try FakeLibraries() }
    private static let home = Result { try FakeRig.temporaryDirectory("fake-libraries") }

    static func built() throws -> FakeLibraries { try shared.get() }

    func directory(of nvml: NVML) -> URL? { directories[nvml] }

    private init() throws {
        let sources = URL(filePath: #filePath).deletingLastPathComponent()
        let directory = try Self.home.get()
        atexit { FakeLibraries.removeHome() }
        preload = directory.appending(path: "preload.so")
        let flags = ["-I/usr/include/libdrm", "-ldl"]
        try Self.compile(sources.appending(path: "preload.c"), to: preload, flags)
        var directories: [NVML: URL] = [:]
        for (nvml, flags) in [(NVML.current, []), (.old, ["-DOLD_RELEASE"])] {
            let target = directory.appending(path: nvml.rawValue)
            try FileManager.default.createDirectory(at: target, withIntermediateDirectories: true)
            try Self.compile(sources.appending(path: "nvml.c"), to: target.appending(path: "libnvidia-ml.so.1"), flags)
            directories[nvml] = target
        }
        let foreign = directory.appending(path: NVML.foreign.rawValue)
        try FileManager.default.createDirectory(at: foreign, withIntermediateDirectories: true)
        try FileManager.default.copyItem(at: preload, to: foreign.appending(path: "libnvidia-ml.so.1"))
        directories[.foreign] = foreign
        self.directories = directories
        try checkLoading()
    }

    /// Makes sure that programs will see the made-up machine: without umockdev's library they would see the real one, and
    /// the loader only warns.
    private func checkLoading() throws {
        let program = Process()
        program.executableURL = URL(filePath: "/bin/true")
        program.environment = ["LD_PRELOAD": preloaded]
        let output = Pipe()
        program.standardError = output
        try program.run()
        let warnings = try output.fileHandleForReading.readToEnd() ?? Data()
        program.waitUntilExit()
        guard warnings.isEmpty else {
            let text = String(decoding: warnings, as: UTF8.self)
            throw Unusable(description: "the libraries cannot be loaded (apt install umockdev): \(text)")
        }
    }

    /// What LD_PRELOAD must hold.
    var preloaded: String { "\(preload.path) libumockdev-preload.so.0" }

    private static func removeHome() {
        do {
            try FileManager.default.removeItem(at: home.get())
        } catch {
            print("the compiled libraries of the made-up machines could not be removed: \(error)")
        }
    }

    private static func compile(_ source: URL, to library: URL, _ flags: [String]) throws {
        let compiler = Process()
        compiler.executableURL = URL(filePath: "/usr/bin/env")
        compiler.arguments = ["cc", "-shared", "-fPIC", "-O1", "-o", library.path, source.path] + flags
        let output = Pipe()
        compiler.standardError = output
        try compiler.run()
        let message = try output.fileHandleForReading.readToEnd() ?? Data()
        compiler.waitUntilExit()
        guard compiler.terminationStatus == 0 else {
            throw Unusable(description: "cc \(source.path): \(String(decoding: message, as: UTF8.self))")
        }
    }
}

import FakeRig
import Foundation
import Testing
import WireJSON

/// gpu-probe, started on a made-up machine.
struct Probe {
    let rig: FakeRig
    /// GPUProbe, or another program of the package.
    let program: String

    init(_ rig: FakeRig, program: String = "GPUProbe") {
        self.rig = rig
        self.program = program
    }

    /// SwiftPM puts executables beside the bundle of the tests.
    private var executable: URL {
        get throws {
            let bundles = (Bundle.allBundles + [Bundle.main]).map { $0.bundleURL.deletingLastPathComponent() }
            let found = (bundles + [Bundle.main.bundleURL]).map { $0.appending(path: program) }
                .first { FileManager.default.isExecutableFile(atPath: $0.path) }
            return try #require(found, "\(program) is not built")
        }
    }

    struct Result {
        let status: Int32
        let output: String
        let errors: String
    }

    func run(_ arguments: [String], _ variables: [String: String] = [:]) throws -> Result {
        let process = try process(arguments, variables)
        let (output, errors) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = errors
        try process.run()
        let text = try output.fileHandleForReading.readToEnd() ?? Data()
        let errorText = try errors.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return Result(
            status: process.terminationStatus,
            output: String(decoding: text, as: UTF8.self),
            errors: String(decoding: errorText, as: UTF8.self)
        )
    }

    func process(_ arguments: [String], _ variables: [String: String] = [:]) throws -> Process {
        let process = Process()
        process.executableURL = try executable
        process.arguments = arguments
        process.environment = rig.environment.merging(variables) { $1 }
        return process
    }

    func json(_ arguments: [String], _ variables: [String: String] = [:]) throws -> JSON {
        let result = try run(arguments, variables)
        try #require(result.status == 0, "\(result.errors)")
        return try JSON(parsing: Array(result.output.utf8.dropLast()))
    }

    func inventory(_ variables: [String: String] = [:]) throws -> (cards: [JSON], leftOut: [JSON]) {
        let inventory = try json(["json"], variables)
        return (inventory["cards"]?.arrayValue ?? [], inventory["left_out"]?.arrayValue ?? [])
    }

    func environment(of number: Int) throws -> [String: String] {
        let lines = try run(["env", "\(number)"]).output.split(separator: "\n")
        return Dictionary(
            uniqueKeysWithValues: lines.map { line in
                let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                return (String(parts[0]), String(parts[1]))
            }
        )
    }
}

/// A `gpu-probe sample N` that is told when to take the next sample.
final class SamplingProbe {
    private let process: Process
    private let input = Pipe()
    private let output = Pipe()
    private var pending = Data()

    init(_ rig: FakeRig, card: Int) throws {
        process = try Probe(rig).process(["sample", "\(card)"])
        process.standardInput = input
        process.standardOutput = output
        try process.run()
    }

    deinit {
        process.terminate()
        process.waitUntilExit()
    }

    /// The threads that the program has now.
    var threads: Int {
        get throws {
            try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process.processIdentifier)/task").count
        }
    }

    /// The next sample.
    func sample(pids: [Int32] = []) throws -> JSON {
        let line = pids.map(String.init).joined(separator: " ") + "\n"
        try input.fileHandleForWriting.write(contentsOf: Data(line.utf8))
        while true {
            if let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let text = Array(pending[..<end])
                pending = Data(pending[(end + 1)...])
                return try JSON(parsing: text)
            }
            let data = output.fileHandleForReading.availableData
            try #require(!data.isEmpty, "gpu-probe has ended")
            pending.append(data)
        }
    }
}

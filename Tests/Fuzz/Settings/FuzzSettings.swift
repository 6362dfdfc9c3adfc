import Glibc
import JobModel

@testable import ServiceSupport

/// Whatever stands in a configuration file: it is read or refused with a reason, and never crashes.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSettings(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    let file: SettingsFile
    do {
        file = try SettingsFile(parsing: bytes, path: "fuzz.conf")
    } catch {
        precondition(!error.description.isEmpty)
        return 0
    }
    let lines = bytes.count { $0 == 0x0A } + 1
    for assignment in file.assignments {
        precondition((1...lines).contains(assignment.line))
        precondition(!assignment.value.utf8.contains(0))
    }
    readKeys(file)
    return 0
}

/// Gives every value of the file to every key, as if the file had named it.
private func readKeys(_ file: SettingsFile) {
    let schema = SettingsSchema(defaultFile: nil, fileVariable: nil, keys: CommonKeys.all)
    let values = file.assignments.prefix(4)
    for assignment in values {
        _ = schema.nearest(to: assignment.key)
        for key in schema.keys {
            let override = Settings.Override(key: key.name, flag: "--x", value: assignment.value)
            do {
                let settings = try Settings(schema: schema, overrides: [override], environment: { _ in nil })
                try settings.checkConnection()
                let names = try settings.poolNames()
                precondition(!names.enqueueSubject.isEmpty && !names.workQueueStream.isEmpty)
            } catch {
                precondition(!"\(error)".isEmpty)
            }
        }
    }
    // The file as it is, through the environment: a name that no key has is nobody's business there.
    do {
        let environment = { (name: String) in file.assignments.last { $0.key == name }?.value }
        _ = try Settings(schema: schema, environment: environment)
    } catch {
        precondition(!error.description.isEmpty)
    }
}

// lookup NAME…: the addresses that c-ares finds, a line a name; it knows no search path.
const { Resolver } = require('dns').promises

async function main() {
  const resolver = new Resolver()
  for (const name of process.argv.slice(2)) {
    const found = []
    for (const ask of ['resolve4', 'resolve6']) {
      try {
        found.push(...await resolver[ask](name))
      } catch (error) {
        if (!['ENOTFOUND', 'ENODATA'].includes(error.code)) throw error
      }
    }
    console.log(found.join(' ') || 'none')
  }
}

main()
